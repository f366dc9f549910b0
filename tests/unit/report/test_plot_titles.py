"""Titles of panels beside each other: long names of runtimes do not reach into the next panel."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from ceilings.report.render.plots import style

LONG = "onnxruntime-cuda+convolution-search=heuristic fp16, image, turns, from a cold start\non nvidia-h100-80gb-hbm3"


def titled(folder, columns, title):
    """What the panels of a saved figure are titled, and where it lies."""
    with mpl.rc_context(style.SETTINGS):
        figure, rows = style.panels(1, columns, 2.0, "A figure")
        for axis in rows[0]:
            axis.set_title(title, fontsize=9)
    style.save(figure, folder / "a.svg", folder / "a.png")
    renderer = FigureCanvasAgg(figure).get_renderer()
    titles = [axis.get_title(loc="left") for axis in rows[0]]
    found = zip(rows[0], titles, strict=True)
    drawn = [next(one for one in axis.findobj(Text) if one.get_text() == title) for axis, title in found]
    return titles, [one.get_window_extent(renderer) for one in drawn]


@pytest.mark.parametrize(("columns", "broken"), [(1, False), (2, True), (3, True)])
def test_a_long_title_keeps_to_its_panel(tmp_path, columns, broken):
    titles, extents = titled(tmp_path, columns, LONG)
    assert all((title != LONG) == broken and title.split() == LONG.split() for title in titles)
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(extents))


@pytest.mark.parametrize("columns", [4, 5])
def test_a_title_that_is_too_long_for_a_narrow_panel_only_keeps_to_it(tmp_path, columns):
    titles, extents = titled(tmp_path, columns, "torch-compile-max-autotune fp16, turns")
    assert all("\n" in title for title in titles)
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(extents))


def test_a_title_that_fits_stays_as_it_is(tmp_path):
    fits = "onnxruntime-cuda fp16 on nvidia-h100-80gb"
    assert titled(tmp_path, 2, fits)[0] == [fits] * 2
