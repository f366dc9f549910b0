"""The report as a reader meets it: in a real browser, on planted studies whose truth is known."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from unit import planted_records
from unit.report.planted_serving import BATCHING, ServedStudy, batched
from unit.traces import planted as captured_traces

from ceilings import records
from ceilings.report.render.page import blocks, page
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import Evidence, read_evidence
from ceilings.report.tables.frames import BUDGET_COLUMNS, FLOOR_COLUMNS, KERNEL_COLUMNS
from ceilings.report.tables.keys import KEY
from ceilings.traces.budget_record import budget_record

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

pytestmark = pytest.mark.slow  # a browser reads the page

CPU, GPU = planted.CPU, planted.GPU
HOSTILE = (
    """</script><script>window.harmed = 1</script><img src=x onerror="window.harmed = 1"> [a](javascript:harm()) `|"""
)
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --window-size=1400,1000"""
CAPTURED = f"{GPU}/onnxruntime-cuda/distilbert/fp32/b1-s128"
FAILED = f"{CPU}/torch-int8-dynamic/distilbert/int8/b1-s512"
# Two launches, of which the second is a graph with two kernels, and a wait; in ns from the iteration's start.
TIMELINE = {
    "iteration": 0,
    "length": 800_000,
    "calls": [[100_000, 300_000, "launch"], [400_000, 600_000, "launch"], [600_000, 800_000, "sync"]],
    "operations": [
        [290_000, 350_000, "gemm", 7, 100_000],
        [520_000, 600_000, "attention", 7, 400_000],
        [610_000, 790_000, "gemm", 7, 400_000],
    ],
}


BUDGET = {
    "source": "cupti",
    "iteration_ms": 0.8,
    "host_framework_ms": 0.2,
    "host_launch_ms": 0.5,
    "host_sync_ms": 0.1,
    "gpu_busy_ms": 0.3,
    "gpu_gemm_ms": 0.3,
    "idle_launching_ms": 0.5,
    "launches": 96,
    "kernels": 120,
    "verdict": "launch-bound",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A study on two devices: failures, one with a hostile message, cells that cannot run, a budget and a floor."""
    maker = planted.default_study(tmp_path_factory.mktemp("study")).measure(GPU, planted.GPU_CONFIGURATIONS)
    failed = next(
        cell for cell in maker.cells if cell["runtime"] == "torch-int8-dynamic" and cell["axes"].get("sequence") == 512
    )
    maker.fail(failed, 1, "crashed", HOSTILE)
    tables = collect(maker.plan())
    row = tables.cells.query("device == @GPU and runtime == 'onnxruntime-cuda' and shape == 'b1-s128'")
    key = row.iloc[0][KEY].to_dict()
    record = maker.root / "captured.budget.json"
    made = budget_record(captured_traces.capture(captured_traces.eager, 3)) | {"cell": key, "timeline": TIMELINE}
    head = {"status": "ok", "failure": None, "source": "cupti", "tool": "CUPTI", "warmup_p50_ns": None}
    records.write(record, "budget", {**head, **made, "provenance": planted_records.PROVENANCE})
    budget = key | BUDGET | {"path": str(record)}
    kernel = key | {"kernel": "splitKreduce_kernel", "class": "gemm", "count": 6.0, "us": 14.4, "name": "void ...>"}
    floor = key | {"floor_ms": 0.02, "limited_by": "dram", "gap": 36.5, "mfu": 0.04}
    tables = dataclasses.replace(
        tables,
        budgets=pd.DataFrame([budget], columns=BUDGET_COLUMNS),
        kernels=pd.DataFrame([kernel], columns=KERNEL_COLUMNS),
        floors=pd.DataFrame([floor], columns=FLOOR_COLUMNS),
    )
    return maker.plan(), tables, read_evidence(planted.evidence(maker.root))


@pytest.fixture(scope="module")
def html(results):
    return page(*results)


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    """The page of a GPU alone, with a captured cell that is its fastest."""
    maker = planted.StudyMaker(tmp_path_factory.mktemp("captured"))
    maker.measure(GPU, [("onnxruntime-cuda", "fp32"), ("torch-cuda-eager", "fp16")])
    tables = collect(maker.plan())
    row = tables.cells.query("runtime == 'onnxruntime-cuda' and shape == 'b1-s128'").iloc[0]
    record = maker.root / "captured.budget.json"
    made = budget_record(captured_traces.capture(captured_traces.eager, 3)) | {"cell": row[KEY].to_dict()}
    head = {"status": "ok", "failure": None, "source": "cupti", "tool": "CUPTI", "warmup_p50_ns": None}
    records.write(record, "budget", {**head, **made, "timeline": TIMELINE, "provenance": planted_records.PROVENANCE})
    budget = row[KEY].to_dict() | BUDGET | {"path": str(record)}
    tables = dataclasses.replace(tables, budgets=pd.DataFrame([budget], columns=BUDGET_COLUMNS))
    path = maker.root / "report.html"
    path.write_text(page(maker.plan(), tables, Evidence()), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium."""
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("no Chromium with chromedriver on this machine (Debian: chromium, chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def address(html, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


class Reader:
    """What a person does with the page."""

    def __init__(self, browser):
        self.browser = browser

    def open(self, address):
        self.browser.get("about:blank")
        self.browser.get_log("performance"), self.browser.get_log("browser")
        self.browser.get(address)
        self.until("return document.documentElement.dataset.ready")

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def until(self, script):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 10, poll_frequency=0.02).until(
            lambda browser: browser.execute_script(script)
        )

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def rows(self):
        """The cells that the table shows, in its order."""
        return self.run("return [...document.querySelectorAll('#table tbody tr:not([hidden])')].map(row => row.id)")

    def press(self, *keys):
        self.browser.switch_to.active_element.send_keys(*keys)

    def media(self, kind="screen", **features):
        features["prefers_reduced_motion"] = "reduce"  # a click must not meet a page that is still scrolling
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": named})

    def style(self, selector, name):
        return self.run("return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, name)

    def complaints(self):
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def requests(self):
        messages = (json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance"))
        urls = (m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent")
        return [url for url in urls if not url.startswith("data:")]


@pytest.fixture
def reader(chromium, address):
    reader = Reader(chromium)
    reader.media()
    reader.open(address)
    yield reader
    assert reader.complaints() == []


def brightness(colour):
    """Relative luminance of an ``rgb(...)``."""
    channels = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, bright = sorted((brightness(one), brightness(other)))
    return (bright + 0.05) / (dark + 0.05)


def test_it_stands_alone(reader, address):
    assert reader.requests() == [address]
    assert len(reader.rows()) == 121
    drawn = reader.run(
        "return [...document.querySelectorAll('#charts figure:not([hidden])')].map("
        "f => f.querySelectorAll('svg.marks').length)"
    )
    assert drawn == [1, 1]  # along batches and sequences: the first model has no axis of images
    drawn = reader.run("return [...document.querySelectorAll('#answer figure:not([hidden]) svg.marks')].length")
    assert drawn == 2  # latency against throughput, and the configurations: the device has no capture
    assert reader.run("return document.querySelector('#chart-budgets').closest('figure').hidden")


def test_another_model_has_its_own_shapes_and_charts(reader):
    from selenium.webdriver.support.ui import Select

    shapes = "return [...document.querySelectorAll('#shape option')].map(o => o.textContent)"
    assert "batch 1, sequence 512" in reader.run(shapes)
    assert reader.run("return document.getElementById('shape').value") == "b1-s128"
    Select(reader.find("#panel")).select_by_visible_text(f"clip-image on {CPU}")
    assert reader.run(shapes) == ["batch 1, image 224", "batch 4, image 224"]
    reader.until("return document.querySelector('#chart-configurations').view?.data('source_0').length === 2")
    reader.until("return document.querySelector('#chart-batches').view?.data('source_0').length === 4")
    assert reader.run("return document.querySelector('#chart-sequences').closest('figure').hidden")
    # One size of images is no axis to look along.
    assert reader.run("return document.querySelector('#chart-along-image').closest('figure').hidden")
    reader.run("location.hash = arguments[0]", f"#{CPU}/torch-eager/clip-image/fp32/b4-i224")
    reader.until("return document.getElementById('details').open")
    assert reader.find("#details-title").text == "torch-eager fp32, batch 4, image 224"


def test_an_interval_of_decades_does_not_stretch_a_chart(reader):
    """It is drawn as far as twice the slowest and half the fastest median, with arrows where it goes on."""
    reader.until("return document.querySelector('#chart-batches').view !== undefined")
    drawn = "for (const one of DATA.cells) if (one.runtime === 'torch-eager') { one.low /= 1e9; one.high *= 1e9; }"
    reader.run(f"{drawn} drawOverview().then(() => {{ window.again = true; }});")
    reader.until("return window.again === true")
    for chart, axis in (("configurations", "x"), ("batches", "y")):
        view = f"document.querySelector('#chart-{chart}').view"
        rows = reader.run(f"return {view}.data('source_0')")
        medians = [row["p50_ms"] for row in rows]
        (wide, *_) = [row for row in rows if row["runtime"] == "torch-eager"]
        assert wide["goes_below"] == wide["drawn_from"] == min(medians) / 2
        assert wide["goes_above"] == wide["drawn_to"] == max(medians) * 2
        assert wide["low"] < 1e-6 * wide["p50_ms"]  # what the tooltip says stays
        low, high = sorted(reader.run(f"return {view}.scale('{axis}').domain()"))
        assert low >= min(medians) / 4 and high <= max(medians) * 4
        (narrow, *_) = [row for row in rows if row["runtime"] == "onnxruntime-cpu"]
        assert (narrow["drawn_from"], narrow["drawn_to"]) == (narrow["low"], narrow["high"])
        assert "goes_below" not in narrow and "goes_above" not in narrow


def test_messages_of_runtimes_stay_text(reader):
    told = "crashed: " + HOSTILE
    assert told in reader.run("return document.getElementById(arguments[0]).textContent", FAILED)
    reader.run("location.hash = arguments[0]", f"#{FAILED}")
    reader.until("return document.getElementById('details').open")
    assert told in reader.run("return document.getElementById('details').textContent")
    assert "see the log, mend the cause" in reader.find("#details").text
    assert reader.run("return window.harmed") is None


def test_filter(reader):
    words = reader.find("#words")
    words.send_keys("eager FP32")
    eager = [name for name in reader.rows() if "torch-eager" in name]
    assert len(reader.rows()) == len(eager) + 8 == 18  # and the GPU's eager cells, which cannot run here
    assert reader.find("#count").text == "18 of 121 rows"
    reader.find("[data-facet=status] summary").click()
    reader.find("[data-facet=status] input[value=ok]").click()
    assert reader.rows() == eager
    assert "ok" in reader.find("[data-facet=status] summary").text
    reader.until("return document.querySelector('#chart-configurations').view?.data('source_0').length === 1")
    reader.find("#filter [type=reset]").click()
    reader.until("return document.getElementById('count').textContent.startsWith('121 of')")


def test_sort_by_keyboard(reader):
    from selenium.webdriver.common.keys import Keys

    header = reader.find("[data-sort=p50_ms]")
    values = """return [...document.querySelectorAll('#table tbody tr')].map(row => CELLS.get(row.id).p50_ms ?? null)"""
    header.find_element("css selector", "button").send_keys(Keys.ENTER)
    assert header.get_attribute("aria-sort") == "ascending"
    found = reader.run(values)
    known = [value for value in found if value is not None]
    assert known == sorted(known) and found[len(known) :] == [None] * 61
    reader.press(Keys.SPACE)
    assert header.get_attribute("aria-sort") == "descending"
    found = reader.run(values)
    assert found[: len(known)] == known[::-1] and found[-1] is None
    reader.find("[data-sort=label] button").click()
    assert header.get_attribute("aria-sort") is None


def test_from_a_finding_to_its_cells_and_back(reader):
    from selenium.webdriver.common.keys import Keys

    reader.run("for (const one of document.querySelectorAll('details.all')) one.open = true")
    finding = reader.run(
        "return [...document.querySelectorAll('.findings li')].find(li => /int8.*fp32 over batch/.test(li.textContent))"
    )
    finding.find_element("css selector", "summary").send_keys(Keys.ENTER)
    links = finding.find_elements("css selector", ".evidence a")
    names = [link.get_attribute("hash")[1:] for link in links]
    assert len(names) == 8 and all("/b" in name for name in names)
    links[1].send_keys(Keys.ENTER)
    reader.until("return document.querySelector('#details[open] svg.marks')")
    assert reader.find("#details-title").text == f"{links[1].text.rsplit(' b', 1)[0]}, batch " + re.search(
        r"b(\d+)-s(\d+)", names[1]
    ).expand(r"\1, sequence \2")
    assert "Findings that rest on it" in reader.find("#details").text
    assert f"{names[1]}/run1.json" in reader.find("#details").text
    reader.press(Keys.ESCAPE)
    assert not reader.find("#details").get_attribute("open")
    assert reader.browser.switch_to.active_element == links[1]
    finding.find_element("css selector", "button.only").click()
    assert sorted(reader.rows()) == sorted(names)


def test_a_cell_with_a_capture_and_a_floor(reader):
    reader.run("location.hash = arguments[0]", f"#{CAPTURED}")
    reader.until("return document.querySelectorAll('#details[open] svg.marks').length === 4")
    marks = (
        "[...document.querySelectorAll('#details .chart')].map(c => c.querySelectorAll('.role-mark.mark-{}').length)"
    )
    bars = reader.run(f"return {marks.format('rect path')}")
    assert bars == [5, 6, 0, 0]  # the account's parts; three calls and three operations
    assert reader.run(f"return {marks.format('rule line')}")[1] == 4  # both ends, and from each launch
    told = reader.find("#details").text
    account = reader.run("return document.getElementById('where-the-time-goes').textContent")
    assert "96 launches of" in account
    assert "launch-bound" in told and "36.5 ×" in told and "captured.budget.json" in told
    reader.find("#details-body details:nth-of-type(2) summary").click()
    assert "splitKreduce_kernel gemm 6 2.40 14.4" in reader.find("#details-body").text
    assert [cell.text for cell in reader.browser.find_elements("css selector", f"tr[id='{CAPTURED}'] td")][-4:-1] == [
        "0.0200",
        "36.5",
        "launch-bound",
    ]


def test_first_stop_of_the_keyboard_skips_to_the_cells(reader):
    from selenium.webdriver.common.keys import Keys

    reader.press(Keys.TAB)
    skip = reader.browser.switch_to.active_element
    assert skip.text == "Skip to the cells" and skip.rect["x"] >= 0
    assert reader.style(".skip", "outlineStyle") == "solid"


def test_light_and_dark(reader):
    from selenium.webdriver.support.ui import Select

    for scheme, dark in (("light", False), ("dark", True)):
        reader.media(prefers_color_scheme=scheme)
        page_colour = reader.style("body", "backgroundColor")
        assert (brightness(page_colour) < 0.1) is dark
        for selector in ("body", ".status.ok", ".status.failed", ".status.unavailable", ".flag", "a", "#count"):
            assert contrast(reader.style(selector, "color"), page_colour) > 4.5, (scheme, selector)
        assert contrast(reader.style("#chart-batches .role-axis-label text", "fill"), page_colour) > 4.5
    Select(reader.find("#theme")).select_by_value("light")
    assert brightness(reader.style("body", "backgroundColor")) > 0.9
    Select(reader.find("#theme")).select_by_value("dark")
    assert brightness(reader.style("body", "backgroundColor")) < 0.1
    reader.media(kind="print", prefers_color_scheme="dark")
    assert brightness(reader.style("body", "backgroundColor")) > 0.9  # paper is white
    assert reader.style("#filter", "display") == "none"
    reader.run("localStorage.clear()")


def test_a_phone_does_not_scroll_sideways(reader, address):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    reader.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        reader.open(address)
        assert reader.run("return document.documentElement.scrollWidth") == 390
        reader.run("location.hash = arguments[0]", f"#{CAPTURED}")
        reader.until("return document.querySelector('#details[open] svg.marks')")
        assert reader.run("const d = document.getElementById('details'); return d.scrollWidth <= d.clientWidth")
    finally:
        reader.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def box(reader, selector):
    return reader.run(
        "const box = document.querySelector(arguments[0]).getBoundingClientRect(); return [box.top, box.bottom]",
        selector,
    )


def test_the_first_screen_shows_the_answer(chromium, captured):
    """On a desktop the decision, the Pareto front and a budget beside it; on a phone the first decision."""
    reader = Reader(chromium)
    screens = {(1400, 900): (".decision", "#chart-pareto .role-frame", "#chart-budgets .role-frame"), (390, 844): ()}
    for (width, height), shown in screens.items():
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        reader.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            reader.open(captured)
            assert reader.run("return document.documentElement.scrollWidth") <= width
            for selector in (".decision tbody tr:first-child", *shown):
                top, bottom = box(reader, selector)
                assert 0 <= top < bottom <= height, (width, selector, top, bottom)
            told = reader.find(".decision tbody tr:first-child").text
            assert "0.7" in told and "launch-bound" in told and "onnxruntime-cuda" in told
        finally:
            reader.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_front_is_of_cells_that_no_other_beats(chromium, captured):
    reader = Reader(chromium)
    reader.open(captured)
    rows = reader.run("return document.querySelector('#chart-pareto').view.data('source_0').map(r => ({...r}))")
    front = [row["name"] for row in rows if row["front"]]
    beaten = {
        row["name"]
        for row in rows
        if any(o["p50_ms"] <= row["p50_ms"] and o["throughput"] > row["throughput"] for o in rows)
        or any(o["p50_ms"] < row["p50_ms"] and o["throughput"] >= row["throughput"] for o in rows)
    }
    assert front and {row["name"] for row in rows} == {*front} | beaten and not {*front} & beaten
    assert len(reader.browser.find_elements("css selector", "#chart-budgets .mark-rect.role-mark path")) == 5


def test_findings_are_cards_with_a_verdict_a_sentence_and_a_proof_behind_a_click(reader):
    cards = reader.browser.find_elements("css selector", "ol.findings > .card")
    assert 3 < len(cards) <= 8
    first = cards[0]
    assert first.find_element("css selector", ".chip").text
    proof = first.find_element("css selector", ".evidence")
    sentence = first.find_element("css selector", ".text").text
    assert re.search(r"\d", sentence) and len(sentence) < 250
    assert not proof.get_attribute("open") and not proof.find_element("css selector", "a").is_displayed()
    proof.find_element("css selector", "summary").click()
    assert proof.find_element("css selector", "a").is_displayed() and "[" in proof.text
    hidden = reader.run("return [...document.querySelectorAll('details.all')].filter(one => !one.open).length")
    assert hidden >= 1


def test_legends_are_not_cut_off(chromium, tmp_path):
    """Nine runtimes with names as long as there are: every label lies within its chart."""
    maker = planted.StudyMaker(tmp_path, planted.flat)
    runtimes = [f"torch-compile-reduce-overhead-{letter}" for letter in "abcdefghi"]
    maker.measure(GPU, [(runtime, p) for runtime in runtimes for p in ("fp32", "fp16")], [(1, 128), (8, 128)])
    path = tmp_path / "report.html"
    path.write_text(page(maker.plan(), collect(maker.plan()), Evidence()), encoding="utf-8")
    reader = Reader(chromium)
    reader.open(path.as_uri())
    reader.until("return document.querySelector('#chart-batches svg.marks')")
    ends = """const end = one => (box => [box.right, box.bottom])(one.getBoundingClientRect());
        const whole = end(document.querySelector('#chart-batches svg'));
        return [...document.querySelectorAll('#chart-batches .role-legend-label text')].map(
            text => end(text).map((value, i) => value - whole[i]))"""
    beyond = reader.run(ends)
    assert len(beyond) == len(runtimes) + 2  # and the two precisions
    assert not [ends for ends in beyond if max(ends) > 0]
    try:  # a narrower window has fewer columns, a wider one more, and legends of other heights
        for width in (620, 480, 1000):
            chromium.set_window_size(width, 900)
            reader.until(f"return ((ends) => ends.every((one) => Math.max(...one) <= 0))((() => {{ {ends} }})())")
    finally:
        chromium.set_window_size(1400, 900)


@pytest.mark.timing
def test_a_thousand_cells_open_at_once(chromium, tmp_path):
    maker = planted.StudyMaker(tmp_path, planted.flat)
    runtimes = [f"runtime-{letter}" for letter in "abcdefghij"]
    shapes = [(batch, sequence) for batch in (1, 2, 4, 8, 16) for sequence in (32, 64, 128, 256, 512)]
    names = [(runtime, precision) for runtime in runtimes for precision in ("fp32", "fp16", "bf16", "int8")]
    maker.measure(CPU, names, shapes, n=60)
    path = tmp_path / "report.html"
    path.write_text(page(maker.plan(), collect(maker.plan()), Evidence()), encoding="utf-8")
    assert path.stat().st_size < 15e6
    reader = Reader(chromium)
    reader.open(path.as_uri())
    assert len(reader.rows()) == 1000
    assert reader.run("return performance.getEntriesByName('ready')[0].startTime") < 2000
    sort = "const t = performance.now(); sortTable(document.querySelector('[data-sort=p50_ms]'));"
    assert reader.run(f"{sort} return performance.now() - t") < 500


def test_a_large_study_shows_the_same(chromium, address, results, tmp_path, monkeypatch):
    """The same cells as a small page and as one that is taken apart: rows, and all that opens."""
    monkeypatch.setattr(blocks, "LARGE", 10)
    monkeypatch.setattr(blocks, "BLOCK", 7)
    large = tmp_path / "report.html"
    large.write_text(page(*results), encoding="utf-8")
    texts = """return [...document.querySelectorAll('#table tbody tr')].map(row => [row.id, ...row.cells].map(
        one => (one.textContent ?? one).replace(/\\s+/g, ' ').trim() + (one.className ?? '') + (one.colSpan ?? '')))"""
    seen = []
    for path in (address, large.as_uri()):
        reader = Reader(chromium)
        reader.media()
        reader.open(path)
        names = reader.run("return DATA.cells.map(cell => [cell.name, cell.status, cell.p50_ms ?? null])")
        facts = [reader.run("return whole(CELLS.get(arguments[0])).then(JSON.stringify)", name) for name, *_ in names]
        known = [json.loads(fact) for fact in facts]
        for one in known:
            for added in ("sizes", "texts", "flags", "reason", "remedy"):
                one.pop(added, None)
        seen.append((reader.run(texts), names, known, reader.find("#count").text))
        reader.run("location.hash = arguments[0]", f"#{FAILED}")
        reader.until("return document.querySelector('#details[open] .facts dd')")
        assert reader.run("return window.harmed ?? null") is None
        assert reader.complaints() == []
    assert len(seen[0][0]) > 100
    for small, taken_apart in zip(*seen, strict=True):
        assert taken_apart == small


def test_a_large_study_makes_rows_as_they_are_asked_for(chromium, tmp_path):
    """Rows that are in sight, filter, sort, and a cell that opens from its block; the page is one file."""
    maker = planted.StudyMaker(tmp_path, planted.flat, runs=1)
    runtimes = [f"runtime-{letter}" for letter in "abcde"]
    shapes = [(batch, sequence) for batch in range(1, 11) for sequence in range(32, 56)]
    maker.measure(CPU, [(runtime, "fp32") for runtime in runtimes], shapes, n=60)
    path = tmp_path / "report.html"
    path.write_text(page(maker.plan(), collect(maker.plan()), Evidence()), encoding="utf-8")
    reader = Reader(chromium)
    reader.open(path.as_uri())
    assert len(reader.rows()) == 200
    reader.run("document.getElementById('more').scrollIntoView()")
    reader.until("return document.querySelectorAll('#table tbody tr').length === 400")
    reader.run("sortTable(document.querySelector('[data-sort=sequence]'))")
    reader.run("sortTable(document.querySelector('[data-sort=sequence]'))")
    assert [name.rsplit("s", 1)[1] for name in reader.rows()[:50]] == ["55"] * 50
    reader.find("#words").send_keys("runtime-e")
    reader.until("return document.getElementById('count').textContent === '240 of 1200 rows'")
    assert {name.split("/")[1] for name in reader.rows()} == {"runtime-e"}
    name = f"{CPU}/runtime-b/distilbert/fp32/b7-s41"
    reader.run("location.hash = arguments[0]", f"#{name}")
    reader.until("return document.querySelector('#details[open] .facts dd')")
    assert "b7-s41/run1.json" in reader.find("#details-body").text
    assert not [url for url in reader.requests() if not url.startswith("file:")]
    assert reader.complaints() == []


def test_loads_behind_servers_are_drawn(chromium, tmp_path):
    study = ServedStudy(tmp_path, sizes=(1, 2, 4))
    study.deploy("http", rates=(40,))
    study.deploy("batched", batched, batching=BATCHING)
    path = tmp_path / "report.html"
    path.write_text(page(study.plan(), study.tables(), Evidence()), encoding="utf-8")
    reader = Reader(chromium)
    reader.open(path.as_uri())
    marks = "return document.querySelectorAll('#chart-served-{}-0 svg .mark-{}.role-mark path').length"
    assert reader.run(marks.format("latency", "rect")) >= 7 * 4, "parts of seven loads"
    assert reader.run(marks.format("throughput", "symbol")) == 7
    assert reader.run(marks.format("batches", "rect")) == 3
    assert reader.complaints() == [] and reader.requests() == [path.as_uri()]


def test_nothing_measured_is_a_page_too(tmp_path):
    maker = planted.StudyMaker(tmp_path)
    maker.unavailable("tensorrt", "fp16", 1, 128, "no CUDA device on this machine", "run on a machine with one")
    told = page(maker.plan(), collect(maker.plan()), Evidence())
    assert "Nothing: no cell was measured." in told and "no CUDA device on this machine" in told
    assert "NaN" not in told.split('id="data"')[1].split("</script>")[0]
