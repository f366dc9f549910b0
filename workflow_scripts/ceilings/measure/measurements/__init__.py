"""What is measured of a loaded cell: a module a measurement, each with ``measure(bench)``, which returns series by name.

Modules of plug-ins are found here too.
"""

from ceilings import plugins

__path__.extend(plugins.paths("measure/measurements"))
