"""Search indexes: vectors and row ids in, the best ids and their scores out."""

from crossmodal.index.base import Index
from crossmodal.index.exact import ExactIndex
from crossmodal.index.faiss import FaissIndex

__all__ = ["ExactIndex", "FaissIndex", "Index"]
