"""Measures: arrays in, numbers out."""

from crossmodal.metrics.measures import DirectionReport, PerQuery
from crossmodal.metrics.retrieval import RetrievalReport, evaluate_retrieval

__all__ = ["DirectionReport", "PerQuery", "RetrievalReport", "evaluate_retrieval"]
