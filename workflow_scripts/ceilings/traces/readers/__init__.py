"""Readers: a module for each form of trace; each returns a recording, or what a program says of itself."""

from ceilings.traces.readers.catalogue import read

__all__ = ["read"]
