"""Negatives beyond the batch's own, and pairs that must not be taken for negatives."""
