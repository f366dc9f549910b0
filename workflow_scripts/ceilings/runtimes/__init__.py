"""Ways to execute a model: one module each, all behind :class:`ceilings.runtimes.base.Runner`."""
