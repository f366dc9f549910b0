"""Tables that were edited, and whose digests were corrected, still have to say what their samples say."""

from __future__ import annotations

import pandas as pd
import pytest
from unit import planted_records
from unit.report import planted_study as planted

from ceilings.errors import UserError
from ceilings.files import sha256
from ceilings.report.tables.collect import collect
from ceilings.report.tables.frames import read_tables


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    maker = planted.StudyMaker(tmp_path_factory.mktemp("study"), runs=2)
    maker.measure(planted.GPU, planted.GPU_CONFIGURATIONS, [(1, 128)], n=700)
    failed = maker.add(planted.GPU, "tensorrt", "fp16", 4, 128)
    maker.fail(failed, 1)
    return collect(maker.plan())


def edited(tables, folder, name, change):
    """The folder of the tables after an edit of one, with the digest that belongs to it."""
    tables.write(folder)
    path = folder / f"{name}.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    files = {one.name: sha256(one) for one in folder.glob("*.parquet")}
    planted_records.edit(folder / "tables.json", files=files)
    return folder


def column(name, value):
    """Set a column of the first row."""

    def change(frame):
        values = frame[name].astype(object)
        values.iloc[0] = value
        return frame.assign(**{name: values.astype(frame[name].dtype)})

    return change


def test_tables_as_they_were_collected_are_read(tables, tmp_path):
    again = read_tables(edited(tables, tmp_path, "cells", lambda frame: frame))
    assert list(again.cells["status"]) == ["ok", "ok", "ok", "failed"]


@pytest.mark.parametrize(
    ("name", "change", "flaw"),
    [
        ("cells", column("p50_ms", 1e-6), "cells has p50_ms of .* outside of its interval"),
        ("cells", lambda frame: frame.assign(p50_ms=frame["p50_ms"] * 1.0001), "and its samples give"),
        ("cells", column("p50_ms", -1.0), "cells has p50_ms -1 of"),
        ("cells", column("p50_low_ms", 99.0), "cells has p50_ms of .* outside of its interval"),
        ("cells", column("p99_ms", 1e-6), "cells has p99_ms"),
        ("cells", column("mean_ms", 1.0), "cells has mean_ms 1 of .*, and its samples give"),
        ("cells", column("n", 5), "cells has n 5 of .*, and its samples give 1400"),
        ("cells", column("processes", 7), "cells has processes 7 of .*, and its samples give 2"),
        ("cells", column("inferences_per_s", 1e9), r"cells has inferences_per_s 1e\+09 of"),
        ("cells", column("saturated_per_s", -4.0), "cells has saturated_per_s -4 of"),
        ("cells", column("cosine", 7.0), "cells has cosine 7 of"),
        ("cells", column("top1_agreement", 5.0), "cells has top1_agreement 5 of"),
        ("cells", column("status", "failed"), "cells has a latency of .*, whose status is failed"),
        ("cells", column("runtime", "other"), "cells has no .* torch-cuda-eager .*, and samples has iterations of it"),
        ("cells", lambda frame: pd.concat([frame, frame]), "cells has .* twice"),
        ("cells", lambda frame: frame.iloc[1:], "cells has no .*, and samples has iterations of it"),
        ("cells", lambda frame: frame.assign(processes="x"), "processes holds other than numbers"),
        ("runs", column("p50_ms", 1.0), "runs has p50_ms 1 of .*, and its samples give"),
        ("runs", lambda frame: frame.iloc[1:], "runs and samples differ in what was measured"),
        ("runs", column("gpu", "x"), "runs has gpu is 'x'; it must be an object"),
        ("runs", column("gpu", '{"latency": 3}'), "runs has gpu .latency is 3; it must be an object"),
        ("runs", column("environment", "[1]"), "runs has environment is a list of 1; it must be an object"),
        ("samples", lambda frame: frame.assign(latency_ns=frame["latency_ns"] // 2), "and its samples give"),
        ("samples", lambda frame: frame[frame["run"] == 1], "runs and samples differ in what was measured"),
        ("samples", lambda frame: frame.iloc[:0], "runs and samples differ in what was measured"),
    ],
)
def test_an_edited_table_is_refused_whatever_its_digest_is(tables, tmp_path, name, change, flaw):
    with pytest.raises(UserError, match=flaw) as caught:
        read_tables(edited(tables, tmp_path, name, change))
    assert "tables.json" in str(caught.value) or f"{name}.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)
