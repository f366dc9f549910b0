"""Ranges of named axes."""

from __future__ import annotations

import doctest

import pytest

from ceilings.engines import profiles
from ceilings.engines.profiles import Profile
from ceilings.errors import CellFailure
from ceilings.workload.shape import Shape

TEXT = Profile({"batch": (1, 8, 32), "sequence": (16, 128, 512)})
IMAGE = Profile({"batch": (1, 4, 8)})


def test_a_profile_takes_shapes_of_its_axes_in_its_ranges():
    for name, taken in (("b1-s16", True), ("b32-s512", True), ("b33-s16", False), ("b1-s8", False), ("b1", False)):
        assert TEXT.covers(Shape.parse(name)) == taken, name
    assert TEXT.covers(Shape.parse("b1-s16.half"))  # of other lengths, and of the same size
    assert not IMAGE.covers(Shape.parse("b4-i224"))
    fixed = IMAGE.completed({"image": 224})
    assert fixed.covers(Shape.parse("b4-i224")) and not fixed.covers(Shape.parse("b4-i336"))
    assert fixed.completed({"image": 336}) == fixed


def test_records_hold_ranges_by_axis_in_the_order_of_names_of_shapes():
    written = {"sequence": [16, 128, 512], "batch": [1, 8, 32]}
    assert profiles.read([written]) == [TEXT]
    assert list(Profile.from_json(written).to_json()) == ["batch", "sequence"]
    assert str(TEXT) == "b1-s16 to b32-s512, best at b8-s128"
    assert str(Profile.static(Shape.parse("b4-i224"))) == "b4-i224"


def test_a_static_name_is_that_of_a_shape_whose_rows_are_full():
    assert profiles.static("b8-i224") == Profile({"batch": (8, 8, 8), "image": (224, 224, 224)})
    for other in ("short", "b8-s128.half", "v2", "s128-b8"):
        assert profiles.static(other) is None


def test_the_first_profile_that_takes_a_shape_counts():
    known = [Profile.static(Shape.parse("b8-s128")), TEXT]
    assert [profiles.covering(known, Shape.parse(name)) for name in ("b8-s128", "b1-s128")] == [0, 1]
    with pytest.raises(
        CellFailure, match="shape b64-s8 lies in no profile of the engine: b8-s128; b1-s16 to"
    ) as caught:
        profiles.covering(known, Shape.parse("b64-s8"))
    assert caught.value.kind == "outside-profiles"


def test_sizes_that_are_out_of_order_are_named():
    assert TEXT.problem() is None
    assert Profile({"image": (224, 112, 336)}).problem() == (
        "image has min 224, opt 112, max 336; 1 <= min <= opt <= max must hold"
    )


def test_the_examples_hold():
    assert doctest.testmod(profiles).attempted and not doctest.testmod(profiles).failed
