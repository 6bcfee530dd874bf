"""What the library raises when the user can mend it.

Every message is one line: what was seen, what was expected, what to do. Anything else that escapes the
library is a fault of ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class CrossmodalError(Exception):
    """Something the user can mend; ``str(error)`` is one line that says how."""


class ImageError(CrossmodalError, ValueError):
    """A picture that cannot or must not be decoded."""


class SourceError(CrossmodalError, ValueError):
    """A source of pairs that cannot be read as asked."""


class EncoderError(CrossmodalError, ValueError):
    """An encoder that is unknown, cannot be loaded, or does not fit."""


class IndexingError(CrossmodalError, ValueError):
    """A search index that cannot be built or asked as wanted."""


class CollectionError(CrossmodalError, ValueError):
    """A collection that cannot be created, opened or changed as asked."""


class QueryError(CrossmodalError, ValueError):
    """A query that cannot be answered: empty, out of range, or with a filter that does not parse."""


class EvaluationError(CrossmodalError, ValueError):
    """Embeddings or pairs that cannot be measured as asked."""


class TrainingError(CrossmodalError, ValueError):
    """A training that cannot be begun, gone on with or trusted as asked."""


class StorageError(CrossmodalError, OSError):
    """The disk refused: full, read-only, or not permitted."""


class MissingPackageError(CrossmodalError, ImportError):
    """An optional package is absent; the message holds the command that installs it."""


def unknown(kind: str, seen: str, known: Iterable[str]) -> str:
    """Give the message for a name that is not in a closed list, with the nearest known one.

    >>> unknown("encoder", "lit", ["lite", "open_clip:..."])
    "Unknown encoder 'lit'. Did you mean 'lite'? Known: lite, open_clip:..."
    """
    names = sorted(known)
    near = difflib.get_close_matches(seen, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {seen!r}.{hint} Known: {', '.join(names) or 'none'}"


def first_few(things: "Sequence[object] | NDArray[np.integer[Any]]") -> str:
    """Write the first of many things for a message.

    >>> first_few([3, 1, 4, 1, 5, 9])
    '3, 1, 4, 1, 5, ...'
    """
    listed = ", ".join(str(thing) for thing in things[:5])
    return f"{listed}, ..." if len(things) > 5 else listed
