"""Explains Transformer inference latency across execution stacks.

Packages are split by what they know: ``study`` (which cells exist), ``models`` (weights and inputs), ``graphs``
(ONNX artifacts), ``runtimes`` (ways to execute one), ``measure`` (clocks and statistics), ``report`` (what it means).
"""

from ceilings import absent as _absent
from ceilings import environment as _environment

# Here, since every program imports this package before any library.
_absent.explain()
_environment.quiet()

SCHEMA_VERSION = 2
"""Version of every JSON record that the pipeline writes."""
