"""The options behind a spec: ``karpathy:dataset_coco.json?images=DIR&split=test``."""

from collections.abc import Collection
from urllib.parse import unquote

from crossmodal.errors import SourceError, unknown


def with_options(path: str, **options: str | None) -> str:
    """Write ``PATH?name=value&...`` as ``split_options`` reads it, without the options that are None."""
    written = [
        f"{name}={value.replace('%', '%25').replace('&', '%26')}" for name, value in options.items() if value
    ]
    return f"{path}?{'&'.join(written)}" if written else path


def split_options(text: str, known: Collection[str], spec: str) -> tuple[str, dict[str, str]]:
    """Split ``PATH?name=value&...`` into the path and its options; ``%26`` stands for ``&`` in a value.

    :raises SourceError: for an option that is not known, comes twice or has no value.
    """
    path, _, query = text.partition("?")
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name not in known:
            raise SourceError(f"{spec}: {unknown('option', name, known)}")
        if name in options or not value:
            raise SourceError(f"{spec}: expected {name}=VALUE once")
        options[name] = unquote(value)
    return path, options
