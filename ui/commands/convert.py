"""``crossmodal convert``: write a twin encoder into a folder, from which it loads without network."""

from pathlib import Path

import click

from ui import options


@click.command("convert", short_help="Write an encoder into a folder of its own.")
@click.argument("encoder")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=options.OneOf(["checkpoint", "original"]),
    default="checkpoint",
    show_default=True,
    help="What is written: a checkpoint of ours, or what the encoder's own library reads.",
)
@options.json_output
@options.verbose
def command(encoder: str, folder: Path, layout: str, as_json: bool) -> None:
    """Write ENCODER (open_clip:..., hf:..., towers:..., or a checkpoint) into FOLDER.

    What is read from there gives the same embeddings bit for bit: as --encoder FOLDER, or with --layout
    original by open_clip (local-dir:FOLDER) or transformers (from_pretrained).
    """
    from crossmodal.encoders.convert import convert_encoder

    blueprint = convert_encoder(encoder, folder, layout)
    if as_json:
        told = {"folder": str(folder), "layout": layout, "family": blueprint.family, "dim": blueprint.dim}
        options.print_json({**told, "encoder": blueprint.name})
    else:
        click.echo(f"{blueprint.name} is now in {folder}: {blueprint.family}, {blueprint.dim} dimensions")
