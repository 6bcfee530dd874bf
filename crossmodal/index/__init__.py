"""Search indexes: vectors and row ids in, the best ids and their scores out."""

from crossmodal.index.base import Index
from crossmodal.index.exact import ExactIndex
from crossmodal.index.faiss import FaissIndex
from crossmodal.index.forms import STORAGES, Storage

__all__ = ["STORAGES", "ExactIndex", "FaissIndex", "Index", "Storage"]
