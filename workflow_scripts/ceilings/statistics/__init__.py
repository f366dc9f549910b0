"""Quantiles, estimands, intervals and decisions: pure functions of numbers."""
