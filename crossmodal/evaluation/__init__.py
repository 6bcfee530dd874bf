"""Evaluation: which pictures and captions are measured, by which rule, and what came out."""

from crossmodal.evaluation.embeddings_file import read_embeddings, write_embeddings
from crossmodal.evaluation.measure import Measured, measure
from crossmodal.evaluation.protocols import PROTOCOLS, Protocol, find_protocol
from crossmodal.evaluation.reading import Embedded, embed_source
from crossmodal.evaluation.result import Result

__all__ = [
    "PROTOCOLS",
    "Embedded",
    "Measured",
    "Protocol",
    "Result",
    "embed_source",
    "find_protocol",
    "measure",
    "read_embeddings",
    "write_embeddings",
]
