"""Pages of explained traces: the answer stands first, every part is there or its absence is said, names stay text."""

from __future__ import annotations

import copy
import re
from xml.etree import ElementTree

import pytest
from unit.report import planted_explanation as planted
from unit.report.test_foreign import HOSTILE, Elements, structure

from ceilings import foreign, records
from ceilings.report.analysis.growth import growths
from ceilings.report.render.explained import (
    explanation_html,
    explanation_page,
    explanation_picture,
    growth_html,
    growth_page,
)
from ceilings.report.render.explained.screen import WIDTH, screen
from ceilings.report.render.markdown import block
from ceilings.report.tables.evidence import read_evidence

FAILED = {"name": "broken", "failure": "broken.json is cut short; export it again", "provenance": {}}
UNSEEN = re.compile("[\ue000-\uf8ff\x00-\x08\x0b-\x1f\u200b\u202e\ufeff]")


@pytest.fixture(scope="module")
def eager():
    return records.sealed("explanation", planted.explanation())


@pytest.fixture(scope="module")
def profile():
    return records.sealed("explanation", planted.profile_only())


def named(record, text):
    """The record with ``text`` for every text that comes out of a trace."""
    changed = copy.deepcopy(record)
    changed["source"] |= {"tool": text, "lacks": [text], "counts": {text: 3}}
    changed["health"] = [{"level": level, "text": text} for level in ("error", "warning", "note")]
    changed["devices"][0]["name"] = text
    changed["iterations"] |= {"name": text, "why": text}
    changed["iterations"]["others"][0]["name"] = text
    group = changed["groups"][0]
    for key, fields in {
        "kernels": ("name", "short"),
        "calls": ("name", "kind"),
        "path": ("part",),
        "parts": ("part",),
        "host": ("thread",),
        "levers": ("lever", "why"),
    }.items():
        for one in group[key]:
            one.update(dict.fromkeys(fields, text))
    group["parts"][1]["part"] = f"framework: {text}"
    group["layers"] = [{"name": text, "kind": text, "count": 1.0, "ns": 5.0}]
    group["what_if"][-1]["why_not"] = text
    group["timeline"]["path"][0][2] = text
    group["timeline"] |= {"threads": [text], "streams": [text] * len(group["timeline"]["streams"])}
    second = copy.deepcopy(group) | {"share": 0.1, "label": text}
    return changed | {"groups": [group | {"share": 0.9, "label": text}, second], "name": text}


def test_the_answer_is_the_first_line(eager):
    shown = explanation_page.page(eager, "x.svg")
    title, answer = shown.split("\n\n")[:2]
    assert title == "# Where the time goes: `eager`"
    assert answer == (
        "**Bound by launches: 5 iterations of 4.58 ms; device busy 6.4%; the largest lever: capture a CUDA graph "
        "(up to −55%).**"
    )
    assert answer.strip("*") in " ".join(screen(eager, colours=False).split())
    assert answer.strip("*") in explanation_html.html(eager)


def test_every_section_is_there(eager):
    headings = re.findall("^## (.*)$", explanation_page.page(eager), re.MULTILINE)
    assert headings == [
        "What to try",
        "What if",
        "Critical path",
        "Idle time by cause",
        "Kernels: the 10 that take most",
        "CUDA calls",
        "Work of the device",
        "Threads of the host",
        "Framework code",
        "Not in the tables above",
        "The whole recording",
        "What was read",
    ]


def test_changes_without_a_number_say_why_once(eager):
    said = "No number if kernels take half the time: the replay at recorded speed is 4% too long."
    assert said in explanation_page.page(eager)
    without = copy.deepcopy(eager)
    for one in without["groups"][0]["what_if"]:
        one.update({"ns": None, "gain": None, "why_not": "nothing was launched"})
    shown = explanation_page.page(without)
    assert shown.count("nothing was launched") == 1 and "What if" in shown and "an iteration takes" not in shown


def test_what_a_format_does_not_have_is_said(profile):
    shown = explanation_page.page(profile)
    assert shown.split("\n\n")[1].startswith("**What bounds it is not in this file: 5 iterations")
    absent = "parts of an iteration, what if, critical path, idle time by cause, kernels, cuda calls"
    assert f"Not in this file, or none of it: {absent}" in shown
    assert "`/encoder/MatMul`" in shown and "- It has no host." in shown
    assert "This file does not say what an iteration consists of." in explanation_html.html(profile)
    assert "Nothing to draw" in explanation_picture.picture(profile)
    assert "/encoder/MatMul" in screen(profile, colours=False)


def test_no_iterations_at_all(eager):
    without = copy.deepcopy(eager) | {"groups": []}
    assert "No iteration was made out in" in explanation_page.page(without)
    assert "No iteration was made out in" in screen(without, colours=False)
    explanation_html.html(without), explanation_picture.picture(without)


def test_a_file_without_times(profile):
    without = copy.deepcopy(profile) | {"groups": [], "span_ns": 0}
    without["health"] = [{"level": "note", "text": "Kinds of layers: 1 gemm."}]
    for shown in (explanation_page.page(without), screen(without, colours=False)):
        assert "It holds no times" in shown and "Kinds of layers: 1 gemm." in shown


def test_a_capture_that_cannot_be_read(eager):
    said = "It cannot be explained: broken.json is cut short; export it again"
    assert said in explanation_page.page(FAILED)
    assert said in explanation_html.html(FAILED)
    assert "Nothing to draw" in explanation_picture.picture(FAILED)
    for sides in ((eager, FAILED), (FAILED, eager)):
        assert "`broken`, cannot be explained: broken.json is cut short" in growth_page.page(*sides)


def test_the_bars_of_a_side_are_as_long_as_the_iteration(eager):
    """On the picture, the widths of the parts of each bar sum to one width, within the residual of medians."""
    from ceilings.report.render.explained.bars import bars

    for bar in bars(eager["groups"][0]):
        assert bar.total == pytest.approx(1, abs=0.03), bar.label


def test_parts_that_run_beside_each_other_have_a_bar_each(profile):
    from ceilings.report.render.explained.bars import bars

    group = profile["groups"][0]
    length = group["length_ns"]["median"]

    def drawn(*shares):
        parts = [{"part": f"part {k}", "ns": share * length, "share": share} for k, share in enumerate(shares)]
        return [[part.share for part in bar.parts] for bar in bars(group | {"parts": parts})]

    assert drawn(0.25, 0.5) == [[0.25, 0.5]]
    assert drawn(0.75, 0.5) == [[0.75], [0.5]]


def test_the_picture_is_xml_that_a_browser_draws(eager):
    tree = ElementTree.fromstring(explanation_picture.picture(eager))
    titles = [one.text for one in tree.iter("{http://www.w3.org/2000/svg}title")]
    assert "launches: 2.31 ms, 50%" in titles
    width = float(tree.attrib["viewBox"].split()[2])
    for box in tree.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width


def test_thousands_of_kernels_stay_a_small_picture(eager):
    large = copy.deepcopy(eager)
    timeline = large["groups"][0]["timeline"]
    timeline["length"] = 100_000_000
    timeline["operations"] = [
        [k * 1000, k * 1000 + 900, ("gemm", "copy")[k % 2], 0, None, True] for k in range(100_000)
    ]
    assert len(explanation_picture.picture(large)) < 1_000_000


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_names_of_a_trace_stay_text(eager, text):
    harmless, hostile = named(eager, "something happened"), named(eager, text)
    for made in (explanation_page.page, lambda record: growth_page.page(eager, record)):
        assert sorted(structure(made(hostile))) == sorted(structure(made(harmless)))
        assert not UNSEEN.search(made(hostile))
    for made in (explanation_html.html, lambda record: growth_html.html(eager, record)):
        seen, wanted = made(hostile), made(harmless)
        assert sorted(Elements(seen).seen) == sorted(Elements(wanted).seen)
        assert not UNSEEN.search(seen) and "<script" not in seen
    drawn = explanation_picture.picture(hostile)
    assert not UNSEEN.search(drawn)
    tags = [
        [one.tag for one in ElementTree.fromstring(made).iter()]
        for made in (drawn, explanation_picture.picture(harmless))
    ]
    assert tags[0] == tags[1]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_terminal_gets_one_screen_of_visible_letters(eager, text):
    shown = screen(named(eager, text), colours=False)
    assert not UNSEEN.search(shown)
    assert all(len(line) <= WIDTH for line in shown.splitlines()), max(shown.splitlines(), key=len)
    coloured = screen(named(eager, text), colours=True)
    assert re.sub("\x1b\\[[0-9]+m", "", coloured) == shown


def test_one_screen(eager):
    assert len(screen(eager, colours=False).splitlines()) <= 45


def test_the_summary_lists_captures(eager, tmp_path):
    from ceilings.report.render.explained_section import explained

    for record in (eager, FAILED | {"provenance": eager["provenance"]}):
        records.write(tmp_path / "explained" / f"{record['name']}.json", "explanation", record)
    lines = explained(read_evidence(sorted((tmp_path / "explained").iterdir()))).splitlines()
    assert lines[2] == "- [broken](explained/broken.md): cannot be explained: broken.json is cut short; export it again"
    assert lines[3].startswith("- [eager](explained/eager.md): Bound by launches: 5 iterations")


def test_what_decides_stands_near_the_top(eager):
    """How sure the iterations are, what lies between them and how widely they spread; where all is well, nothing."""
    well = copy.deepcopy(eager)
    well["iterations"] |= {"between_ns": 0, "certainty": 1.0, "by": "period"}
    well["groups"][0]["lengths_ns"] = [100.0] * 20
    before = explanation_page.page(well).partition("## What to try")[0]
    badly = copy.deepcopy(well)
    badly["iterations"] |= {"between_ns": badly["iterations"]["inside_ns"], "certainty": 0.7}
    badly["groups"][0]["lengths_ns"] = [540_000.0] * 10 + [29_000_000.0] * 10
    badly["health"] = []
    badly["groups"][0]["timeline"] |= {"length": 10_000_000, "path": [[0, 2_000_000, "host: x"]]}
    for shown in (explanation_page.page(badly).partition("## What to try")[0], screen(badly, colours=False)):
        said = " ".join(shown.split())
        for words in (
            "It is not sure what an iteration is (certainty 70%); say it with --range NAME",
            "50% of the time",
            "lie between iterations",
            "marks the critical path in its first 2.00 ms of 10.0 ms only",
            "Iterations take from 540 µs to 29.0 ms, nine tenths of them; the tables are of one between.",
        ):
            assert words in said and words not in " ".join(before.split())


def test_a_verdict_of_the_host_says_that_the_recorder_slows_it(eager):
    assert "A recorder makes the host slower" in explanation_page.page(eager)
    assert "--latency MS" in explanation_html.html(eager) and "--latency MS" in screen(eager, colours=False)
    for changed in ({"untraced": {"how": "fitted"}}, {"devices": []}):
        assert "A recorder makes" not in explanation_page.page({**eager, **changed})
    bound = copy.deepcopy(eager)
    bound["groups"][0]["verdict"] = {"name": "kernel-bound", "meaning": "kernels decide", "majority": 0.5}
    bound["groups"][0]["shares"] |= {"kernel": 0.8}
    shown = explanation_page.page(bound)
    assert (
        "A recorder makes" not in shown and "Kernel-bound: kernels decide. Kernels: 80% of the critical path." in shown
    )


def test_a_verdict_says_which_shares_give_it(eager):
    record = copy.deepcopy(eager)
    record["groups"][0]["shares"] |= {"launch": 0.49, "host": 0.45}
    assert (
        "Launches (49%) and host code (45%) are the host's work: together 94% of the critical path; the larger gives "
        "the name."
    ) in explanation_page.page(record)


def test_a_trace_that_was_cut_before_its_device(eager):
    cut = copy.deepcopy(eager) | {"devices": []}
    lost = "The file was cut off before the first work of a device: copy it again, or export it again."
    cut["health"].append({"level": "error", "text": lost})
    cut["groups"][0] |= {"host": [], "devices": [], "parts": [], "residual_ns": {"host": 0.0, "device": 0.0}}
    for shown in (explanation_page.page(cut), screen(cut, colours=False), explanation_html.html(cut)):
        said = " ".join(shown.split())
        assert said.count(lost) == 1 and f"{lost} On the host: 5 iterations" in said
        for words in ("Bound by", "As the program itself times them", "rest of the", "Launch-bound"):
            assert words not in said


def test_other_ways_name_their_option(eager):
    record = copy.deepcopy(eager)
    record["iterations"] |= {"by": "period", "name": None}
    record["iterations"]["others"] = [
        {"by": "graph", "name": None, "count": 7},
        {"by": "period", "name": None, "count": 30},
    ]
    shown = explanation_page.page(record)
    assert "Also possible: 7 iterations by launches of one CUDA graph (--graph)." in shown
    assert "The same way could also give 30 iterations. No option chooses among these" in shown


def test_nodes_are_summed_by_operator_and_none_is_left_out(profile):
    record = copy.deepcopy(profile)
    record["groups"][0]["layers"] = [
        {"name": f"node {k}", "kind": ("MatMul", "Gemm")[k % 2], "count": 1.0, "ns": 1000.0} for k in range(30)
    ]
    shown = explanation_page.page(record)
    operators, layers = (shown.partition(f"## {title}\n")[2].partition("\n## ")[0] for title in ("Operators", "Layers"))
    assert re.search(r"`MatMul` *\| *15 \| *15.0 µs", operators) and re.search(r"`Gemm` *\| *15 \|", operators)
    assert re.search(r"20 others *\| *\| *20 \| *20.0 µs", layers)
    assert shown.index("## Operators") < shown.index("## Layers")
    assert "Operators of an iteration" in screen(record, colours=False)


def test_causes_of_idle_time_have_colours_of_their_own(eager):
    from ceilings.report.render.explained.bars import bars

    idle = [part.colour for bar in bars(eager["groups"][0]) for part in bar.parts if part.idle]
    assert len(idle) > 1 and len(set(idle)) == len(idle)


def test_cells_know_their_column():
    shown = block("| part | time |\n|:--|--:|\n| a & b | 1 |\n\n| other |\n|:--|\n| <b> |\n")
    assert re.findall('<td[^>]*data-heading="([^"]*)"', shown) == ["part", "time", "other"]
    assert "<b>" not in shown


# --- two traces compared ---------------------------------------------------------------------------------------------


def longer(record, factor, kernel=None):
    """The record with iterations that are ``factor`` times as long; twenty of them, so that intervals exist."""
    changed = copy.deepcopy(record)
    group = changed["groups"][0]
    length = group["length_ns"]["median"] * factor
    group["length_ns"] |= {"median": length}
    group["lengths_ns"] = [length * (1 + 0.001 * k) for k in range(-10, 11)]
    for one in group["kernels"] if kernel else ():
        if one["short"] == kernel:
            one["ns"] *= 10
    return changed


def test_nothing_grew_between_a_trace_and_itself(eager):
    record = longer(eager, 1)
    (growth,) = growths(record, record)
    assert growth.verdict == "undecided" and growth.ratio.low < 1 < growth.ratio.high
    assert not growth.kernels and not growth.calls
    assert all(share.growth == 0 for share in (*growth.path, *growth.host, *growth.device))
    assert "None came, went or changed" in growth_page.page(record, record)


def test_what_grew_has_its_interval_and_its_kernel(eager):
    before, after = longer(eager, 1), longer(eager, 1.2, kernel="vectorized_layer_norm_kernel")
    (growth,) = growths(before, after)
    assert growth.verdict == "longer"
    assert growth.ratio.low < 1.2 < growth.ratio.high and growth.ratio.half_width_fraction < 0.02
    assert [(share.name, share.change) for share in growth.kernels] == [("vectorized_layer_norm_kernel", "longer")]
    assert growths(after, before)[0].verdict == "shorter"


def test_too_few_iterations_decide_nothing(eager):
    (growth,) = growths(eager, eager)
    assert growth.verdict == "not decidable"
    assert "too few iterations" in growth_page.headline(eager, eager)


def test_kernels_that_came_and_went(eager):
    graph = records.sealed("explanation", planted.explanation(planted.GRAPH, "graph"))
    (growth,) = growths(eager, graph)
    changes = {share.name: share.change for share in growth.kernels}
    assert changes["BroadcastBiasKernel"] == "new" and changes["vectorized_layer_norm_kernel"] == "gone"


def test_names_that_differ_behind_what_a_page_shows(eager):
    """Names of kernels are longer than pages show them, and differ in their ends."""
    sides = []
    for end in ("before", "after"):
        record = longer(eager, 1)
        record["groups"][0]["kernels"][0]["name"] = "k" * 2 * foreign.LONGEST + end
        sides.append(record)
    (growth,) = growths(*sides)
    assert sorted(share.change for share in growth.kernels) == ["gone", "new"]


def test_what_makes_sides_unlike_is_said(eager):
    other = copy.deepcopy(eager)
    other["source"]["format"] = "pytorch-profiler"
    other["devices"][0]["name"] = "NVIDIA A100"
    other["iterations"] |= {"by": "period", "certainty": 0.5}
    shown = growth_page.page(eager, other)
    for words in ("two recorders", "The devices differ", "made out by range before and by period", "(after)"):
        assert words in shown
