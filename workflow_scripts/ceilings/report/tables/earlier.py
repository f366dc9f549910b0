"""Tables of the earlier schema, as today's. No other module knows its names.

It had columns ``batch`` and ``sequence`` in place of a shape, ``twin_of`` for ``aa_of`` with ``.twin`` on the runtime's
name for ``.aa``, ``idle_starved_ms`` for ``idle_host_ms``, and no stack, levers or artifact.
"""

from __future__ import annotations

import pandas as pd

from ceilings.report.tables.keys import joined_levers, with_axes
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.workload.shape import Shape

BATCH, SEQUENCE = "batch", "sequence"
SECOND = ".twin"
RENAMED = {"twin_of": "aa_of", "idle_starved_ms": "idle_host_ms"}
WITHOUT_AXES = "samples"
"""A table so long that the shape's name must do."""


def upgraded(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """A table in today's schema, whichever it was in; ``name`` is the table's."""
    if "shape" in frame.columns or not {BATCH, SEQUENCE} <= set(frame.columns):
        return frame
    frame = _named_shapes(frame.rename(columns=RENAMED))
    frame["runtime"] = _renamed(frame["runtime"])
    if name == WITHOUT_AXES:
        return frame.astype({"shape": "category"})
    if "aa_of" in frame.columns:
        frame = _described(frame)
    return with_axes(frame)


def _named_shapes(frame: pd.DataFrame) -> pd.DataFrame:
    """``shape`` where ``batch`` stood; both sizes gone."""
    sizes = frame[[BATCH, SEQUENCE]].drop_duplicates()
    names = {
        pair: str(Shape.of({BATCH: int(pair[0]), SEQUENCE: int(pair[1])}))
        for pair in sizes.itertuples(index=False, name=None)
    }
    shapes = pd.Series(
        [names[pair] for pair in zip(frame[BATCH], frame[SEQUENCE], strict=True)], index=frame.index, dtype=object
    )
    at = list(frame.columns).index(BATCH)
    frame = frame.drop(columns=[BATCH, SEQUENCE])
    frame.insert(at, "shape", shapes)
    return frame


def _renamed(runtimes: pd.Series) -> pd.Series:
    def new(name: str) -> str:
        return f"{name.removesuffix(SECOND)}.aa" if name.endswith(SECOND) else name

    if isinstance(runtimes.dtype, pd.CategoricalDtype):
        return runtimes.cat.rename_categories(new)
    return runtimes.map(new)


def _described(frame: pd.DataFrame) -> pd.DataFrame:
    """The table of cells with what the catalogue says of each runtime, and the columns that it did not have."""
    first = [
        repeated if isinstance(repeated, str) and repeated else name
        for repeated, name in zip(frame["aa_of"], frame["runtime"], strict=True)
    ]
    known = [RUNTIMES.get(name) for name in first]
    columns = {
        "lengths": [""] * len(frame),
        "stack": [runtime.stack if runtime else name for runtime, name in zip(known, first, strict=True)],
        "levers": [joined_levers(runtime.levers) if runtime else "" for runtime in known],
        "artifact": [runtime.artifact if runtime else "" for runtime in known],
    }
    at = list(frame.columns).index("shape") + 1
    for offset, (name, values) in enumerate(columns.items()):
        frame.insert(at + offset, name, pd.Series(values, index=frame.index, dtype=object))
    return frame
