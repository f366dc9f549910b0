"""What is measured of a loaded cell: a module a measurement.

Each has a function ``measure(bench)``, which returns series by name. Modules of plug-ins are imported from here too.
"""

from ceilings import plugins

__path__.extend(plugins.paths("measure/measurements"))
