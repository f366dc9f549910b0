"""Captures of a few steady-state iterations, and where their time went."""
