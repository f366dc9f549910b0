"""A module a family of models, imported by name.

Each has ``build`` (seeded random weights), ``load`` (a folder, strictly), ``save``, ``wrap`` (tensors in, tensors out)
and ``workload`` (what goes in and comes out).
"""

from ceilings import plugins

__path__ = [*__path__, *plugins.paths("models/families")]
