"""``crossmodal train``: make a better encoder of one's own pairs."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ui import options
from ui.endings import Interrupted, one_line
from ui.progress import Bar, Lines, meter

if TYPE_CHECKING:
    from training import Outcome, Standing


@click.command("train", short_help="Make a better encoder of one's own pairs.")
@click.argument("source", required=False)
@click.option("--output", type=click.Path(path_type=Path), help="The folder of the run.")
@click.option(
    "--recipe",
    default="heads",
    show_default=True,
    help="What is trained and how: a name, or a file of TOML.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set one key of the recipe.")
@click.option("--validation", help="The source that is measured on.  [default: a share of SOURCE]")
@click.option("--resume", is_flag=True, help="Go on where the run in --output stopped.")
@click.option("--print", "printed", is_flag=True, help="Print the whole recipe as TOML, and do nothing else.")
@click.option("--image-column", help="The column of a table that names the pictures.")
@click.option("--caption-column", help="The column of a table that holds the captions.")
@click.option("--key-column", help="The column of a table that holds the keys.")
@options.json_output
@options.verbose
def command(
    source: str | None,
    output: Path | None,
    recipe: str,
    overrides: tuple[str, ...],
    validation: str | None,
    resume: bool,
    printed: bool,
    as_json: bool,
    **columns: str | None,
) -> None:
    """Train an encoder on the pictures and captions of SOURCE, and write it into --output.

    The model that validation found best is in OUTPUT/best, and serves wherever an encoder does: --encoder
    OUTPUT/best. Recipes: heads, finetune, lit, lora, scratch, siglip, vse++, or a file of your own. On
    several processes or machines: accelerate launch -m training SOURCE --output DIR ...
    """
    from training.recipe import read_recipe

    chosen = read_recipe(recipe, overrides)
    if printed:
        click.echo(chosen.to_toml(), nl=False)
        return
    if source is None or output is None:
        raise click.UsageError("train needs a SOURCE of pairs and --output DIR", click.get_current_context())
    from training import Stopped, train

    with ExitStack() as shown:
        bar: list[Bar | Lines] = []

        def watch(standing: "Standing") -> None:
            if not bar:  # the data are read before, and told of
                bar.append(meter("training"))
                shown.enter_context(bar[0])
            bar[0].update(standing.step, standing.steps, standing.note)

        try:
            outcome = train(
                source,
                output,
                chosen,
                validation=validation,
                resume=resume,
                columns=columns,
                tell=lambda line: click.echo(one_line(line), err=True),
                watch=watch,
            )
        except Stopped as stopped:
            raise Interrupted(str(stopped), 128 + stopped.number) from None
    if as_json:
        options.print_json(outcome.to_dict())
    else:
        click.echo(summary(outcome))


def summary(outcome: "Outcome") -> str:
    """Say what came of a training in a few lines."""
    return one_line(outcome.line())
