"""Why a pool of inputs or a reference could not be made: the report beside an empty ``.npz``."""

from ceilings.schemas.common import FAILED

SCHEMA = FAILED
