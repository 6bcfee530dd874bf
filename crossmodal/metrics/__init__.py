"""Measures: arrays in, numbers out."""

from crossmodal.metrics.retrieval import DirectionReport, RetrievalReport, evaluate_retrieval

__all__ = ["DirectionReport", "RetrievalReport", "evaluate_retrieval"]
