"""Ways to execute a model: one module each, all behind :class:`ceilings.runtimes.base.Runner`.

Plug-ins add modules of their own (:mod:`ceilings.plugins`).
"""

from ceilings import plugins

__path__ += plugins.paths("runtimes")
