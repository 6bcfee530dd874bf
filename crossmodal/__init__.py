"""Cross-modal retrieval: pictures found by words, words by pictures.

The public names are loaded when first used, so that ``import crossmodal`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossmodal.collection import Collection as Collection
    from crossmodal.encoders import load_encoder as load_encoder
    from crossmodal.errors import CrossmodalError as CrossmodalError
    from crossmodal.metrics.retrieval import evaluate_retrieval as evaluate_retrieval
    from crossmodal.sources import open_source as open_source
    from crossmodal.types import Hit as Hit
    from crossmodal.types import Record as Record

_HOMES = {
    "Collection": "crossmodal.collection",
    "CrossmodalError": "crossmodal.errors",
    "Hit": "crossmodal.types",
    "Record": "crossmodal.types",
    "evaluate_retrieval": "crossmodal.metrics.retrieval",
    "load_encoder": "crossmodal.encoders",
    "open_source": "crossmodal.sources",
}

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'crossmodal' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
