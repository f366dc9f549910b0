"""How much of the time of copies lies under kernels of other requests, in captures whose times are planted."""

import dataclasses

import numpy as np
import pytest
from unit import planted_overlap

from account_overlap import EXPECTED
from ceilings.traces import store
from ceilings.traces.capture import KERNEL
from ceilings.traces.health import refuse_unsound
from ceilings.traces.hidden_copies import SHOWN, accounts


def by_name(*parts_us):
    return {one["name"]: one for one in accounts(planted_overlap.capture(parts_us))}


def test_parts_are_the_planted_ones_in_each_schedule():
    for name, one in by_name(30, 100, 10).items():
        assert one["copy_in_ns"] == 30_000 and one["compute_ns"] == 100_000 and one["copy_out_ns"] == 10_000, name


def test_one_stream_hides_nothing_and_three_hide_all_that_fits():
    found = by_name(30, 100, 10)
    assert found["one-stream"]["hidden_share"] == found["sequential"]["hidden_share"] == 0
    assert found["three-streams"]["hidden_share"] == pytest.approx(1)
    assert found["one-stream"]["period_ns"] == pytest.approx(140_000)
    assert found["three-streams"]["period_ns"] == pytest.approx(100_000)


def test_copies_that_take_longer_than_compute_are_hidden_in_part():
    """Of each 100 us of copies in, 40 lie under the kernels of the request before; copies out, 10 us, under none."""
    one = by_name(100, 40, 10)["three-streams"]
    assert one["period_ns"] == pytest.approx(100_000)
    assert one["hidden_ns"] == pytest.approx(40_000)
    assert one["hidden_share"] == pytest.approx(40 / 110)


def test_kernels_of_the_same_request_hide_nothing():
    """The planted fault: a kernel begins 20 us before the copy of its inputs has ended."""
    capture = planted_overlap.capture()
    operations = capture.operations
    early = operations.start - np.where(
        (operations.kind == KERNEL) & (operations.end - operations.start == 50_000), 20_000, 0
    )
    found = accounts(dataclasses.replace(capture, operations=dataclasses.replace(operations, start=early)))
    sequential = next(one for one in found if one["name"] == "sequential")
    assert sequential["own_ns"] == 20_000 and sequential["hidden_ns"] == 0


def test_the_timeline_holds_all_work_while_some_requests_are_computed():
    rows = by_name(30, 100, 10)["three-streams"]["timeline"]
    computed = [row for row in rows if row[1] == "compute"]
    first = computed[0][0]
    assert [row[0] for row in computed] == list(range(first, first + SHOWN))
    assert [row[3:] for row in computed] == [
        [at * 100_000, (at + 1) * 100_000] for at in range(SHOWN)
    ]  # two kernels as one
    others = {part: [row for row in rows if row[1] == part] for part in ("copy-in", "copy-out")}
    assert {row[4] - row[3] for row in others["copy-in"]} == {30_000}
    assert {row[4] - row[3] for row in others["copy-out"]} == {10_000}
    assert [{row[2] for row in each} for each in (computed, *others.values())] == [{0}, {1}, {2}]
    assert others["copy-out"][0][0] == first - 1 and others["copy-in"][-1][0] > first + SHOWN - 1


def test_a_kept_capture_gives_the_same(tmp_path):
    capture = planted_overlap.capture()
    store.write(tmp_path / "capture.sqlite", capture)
    kept = store.read(tmp_path / "capture.sqlite")
    flags = refuse_unsound(kept, "it")
    assert all(EXPECTED in flag for flag in flags)
    assert accounts(kept) == accounts(capture)


def test_marks_of_another_program_are_refused():
    capture = planted_overlap.capture()
    other = dataclasses.replace(capture, meta={**capture.meta, "requests": 3})
    with pytest.raises(ValueError, match="165 marks are not those of 5 schedules of 3 requests"):
        accounts(other)
