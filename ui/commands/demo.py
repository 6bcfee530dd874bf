"""``crossmodal demo``: the page, over the bundled sample or a person's own pictures."""

import hashlib
import os
import socket
import sys
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crossmodal.errors import CrossmodalError
from crossmodal.machine import cache_root
from ui import options
from ui.commands.index import add_with_progress, open_or_create, reopen, summary

if TYPE_CHECKING:
    from crossmodal.collection import Collection

SAMPLE = "sample"
PORTS_TRIED = 50


@click.command("demo", short_help="Open the page over the sample or your pictures.")
@click.argument("source", default=SAMPLE)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=7860, show_default=True, help="Where to serve."
)
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
@options.dtype
@options.verbose
def command(source: str, port: int, no_browser: bool, dtype: str | None) -> None:
    """Open a page that finds pictures in SOURCE: a folder, a table, or a collection made by index.

    Without SOURCE it is the bundled sample: some thousand drawings in the public domain. What SOURCE holds is
    indexed into your cache folder; the next start is quick.
    """
    collection = prepare(source, dtype)
    click.echo("getting the page ready ...", err=True)
    from crossmodal.sources import read_uri
    from ui.answers import examples
    from ui.web import build, start

    if len(collection):  # the first search loads the text tower; nobody shall wait for it
        collection.search(text="what is it", k=1)
    chips = examples(collection, is_sample=source == SAMPLE)
    blocks = build(collection, read_uri, name=name_of(source), examples=chips)
    taken = free_port(port)
    if taken != port:
        click.echo(f"port {port} is in use; taking {taken}", err=True)
    address = start(blocks, taken)
    click.echo(f"the page is at {address} (Ctrl-C stops it)")
    if not no_browser and has_screen():
        webbrowser.open(address)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    finally:
        blocks.close(verbose=False)


def prepare(source: str, dtype: str | None = None) -> "Collection":
    """Open the collection at a path, or bring a source into one of our own in the user's cache folder."""
    from crossmodal import load_encoder, open_source
    from crossmodal.collection.store import is_collection

    if is_collection(Path(source)):
        return reopen(Path(source), None, "auto", dtype)
    opened = open_source(source)
    # An int8 encoder's own fingerprint changes with the pictures; the place of its collection must not.
    identity = load_encoder("lite").card.fingerprint
    kind = "" if dtype in (None, "float32") else f"-{dtype}"
    with open_or_create(
        cache_folder(opened.spec, identity + kind), opened, None, "auto", dtype
    ) as collection:
        report = add_with_progress(collection, opened)
    if report.added or report.updated or report.removed or report.skipped:
        click.echo(summary(report), err=True)
    return collection


def name_of(source: str) -> str:
    """Give what a person calls a source: the last part of it, or of the folder that it stands for."""
    name = Path(source).name
    return name if name not in ("", "..") else Path(source).resolve().name or source


def cache_folder(spec: str, fingerprint: str) -> Path:
    """Give the place of the collection made of a source with an encoder."""
    name = hashlib.sha256(f"{spec}\n{fingerprint}".encode()).hexdigest()[:16]
    return cache_root() / "demo" / name


def free_port(wanted: int) -> int:
    """Give the first port from ``wanted`` on that nobody listens at.

    :raises CrossmodalError: when many in a row are taken.
    """
    last = min(wanted + PORTS_TRIED, 65536)
    for port in range(wanted, last):
        with socket.socket() as probe:
            if os.name == "posix":  # elsewhere this would take the port of a server that runs
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise CrossmodalError(f"No port from {wanted} to {last - 1} can be used; give another with --port")


def has_screen() -> bool:
    """Say whether a browser window could be seen; without one, a text browser might take the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
