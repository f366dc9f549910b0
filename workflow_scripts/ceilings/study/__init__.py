"""Which cells exist, on which machine, and what each file of the study depends on.

Standard library and jsonschema only: these modules are imported each time the workflow is parsed.
"""
