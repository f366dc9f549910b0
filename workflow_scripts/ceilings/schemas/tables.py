"""What vouches for the tables of a study: the digest of each Parquet file beside it (``collect_cells.py``)."""

from ceilings.schemas.common import SHA256
from ceilings.schemas.terms import record, table

SCHEMA = record({"files": table(SHA256, least=1)})
