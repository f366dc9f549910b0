"""Transfers in tables, findings, the section and the picture, from records whose truth is planted."""

from pathlib import Path

import pytest
from unit import planted_transfers
from unit.planted_transfers import WAYS
from unit.report.planted_study import GPU, StudyMaker

from ceilings import records
from ceilings.errors import UserError
from ceilings.report.analysis.findings.host_copies import transfers
from ceilings.report.analysis.host_curves import bytes_in_words, curves
from ceilings.report.analysis.measured import Measured
from ceilings.report.render import transfer_section
from ceilings.report.render.plots import transfer_curves
from ceilings.report.tables.collect import collect

PEERS = {"p2p.staged": (12.0, 30.0), "p2p.direct": (9.0, 280.0)}

P50_US = 1620
"""Of the planted cell; copies add a tenth of it with pinned memory and a fifth with pageable memory."""


@pytest.fixture
def planted(tmp_path):
    """Tables of a cell of 2 x 1,024 B in and 8 B out, on a device with planted transfers."""

    def make(runs=3, **changes):
        maker = StudyMaker(tmp_path, runs=runs)
        maker.add(GPU, "torch-cuda-eager", "fp16", 1, 128)
        maker.repeat(GPU, "torch-cuda-eager", "fp16", 1, 128)
        return collect(maker.plan() | {"transfers": [planted_transfers.write(tmp_path, GPU, **changes)]})

    return make


def found(tables):
    return transfers(Measured(tables))


def test_a_row_a_way_and_size(planted):
    tables = planted(d2h_mapped="CudaError: cannot be mapped")
    rows = tables.transfers
    assert len(rows) == len(WAYS) * 14 + 1
    (row,) = rows[(rows["way"] == "h2d.pinned") & (rows["bytes"] == 1 << 20)].to_dict("records")
    assert row["host_us"] == pytest.approx(8 + (1 << 20) / 55e3)
    assert (row["host_low_us"], row["host_high_us"]) == (
        pytest.approx(0.98 * row["host_us"]),
        pytest.approx(1.02 * row["host_us"]),
    )
    assert row["device_us"] == pytest.approx(2 + (1 << 20) / 55e3)
    (lacking,) = rows[rows["bytes"].isna()].to_dict("records")
    assert (lacking["way"], lacking["reason"]) == ("d2h.mapped", "CudaError: cannot be mapped")
    assert tables.graph_costs[["nodes", "capture_us", "device_bytes"]].values.tolist() == [
        [1, 3.0, 1024],
        [100, 300.0, 102400],
    ]
    assert len(tables.allocations) == 6 and set(tables.allocations["loop_us"]) == {240.0, 14.0, 15.0}


def test_copies_of_a_cell_by_the_curves_and_as_measured(planted):
    (row,) = planted().copies.to_dict("records")  # and none of the second cell of the A/A pair
    assert (row["copies_in"], row["bytes_in"], row["copies_out"], row["bytes_out"]) == (2, 2048, 1, 8)
    kib = 1024 / 55e3
    assert row["pinned_most_us"] == pytest.approx(2 * (8 + kib) + 8.5 + 8 / 50e3)
    assert row["pinned_least_us"] == pytest.approx(2 * (2 + kib) + 2.125 + 8 / 50e3)
    assert row["pageable_most_us"] == pytest.approx(2 * (9 + 1024 / 11e3) + 9 + 8 / 8e3)
    assert row["pageable_least_us"] is None
    assert row["pinned_added_us"] == pytest.approx(0.1 * P50_US, rel=0.05)
    assert row["pageable_added_us"] == pytest.approx(0.2 * P50_US, rel=0.05)
    assert row["pinned_added_low_us"] < row["pinned_added_us"] < row["pinned_added_high_us"]


def test_one_process_bounds_no_difference(planted):
    (row,) = planted(runs=1).copies.to_dict("records")
    assert row["pinned_added_us"] == pytest.approx(0.1 * P50_US, rel=0.05)
    assert row["pinned_added_low_us"] is None and row["pinned_added_high_us"] is None


def test_a_cell_whose_copies_are_unknown_has_no_row(tmp_path):
    """Records from before their bytes were written down."""
    maker = StudyMaker(tmp_path)
    cell = maker.add(GPU, "torch-cuda-eager", "fp16", 1, 128)
    series = records.read(cell["runs"][0], "run")["series"]
    del series["latency_end_to_end"]["copies"]
    maker.change(cell, 1, series=series)
    tables = collect(maker.plan() | {"transfers": [planted_transfers.write(tmp_path, GPU)]})
    assert tables.copies.empty and len(tables.transfers)


def test_a_curve_that_is_missing_predicts_nothing(planted):
    ways = {name: truth for name, truth in WAYS.items() if name != "d2h.pinned"}
    (row,) = planted(ways=ways).copies.to_dict("records")
    assert row["pinned_most_us"] is None and row["pageable_most_us"] > 0


def test_a_record_of_another_device_is_refused(tmp_path):
    path = planted_transfers.write(tmp_path, GPU)
    other = tmp_path / "results/hosts/nvidia-other/transfers.json"
    other.parent.mkdir()
    other.write_text(Path(path).read_text())
    maker = StudyMaker(tmp_path)
    maker.add(GPU, "torch-cuda-eager", "fp16", 1, 128)
    with pytest.raises(UserError, match=f"is of {GPU}, another device than its path names"):
        collect(maker.plan() | {"transfers": [str(other)]})


def test_pinned_is_found_faster_for_large_copies_and_floors_are_read_back(planted):
    to_device, to_host, *_ = found(planted())
    assert to_device.status == "supported" and to_device.effect.estimate == pytest.approx(5, rel=0.01)
    assert "with pinned memory and 11.0 [10.8, 11.2] GB/s" in to_device.text
    assert "pinned 8.00 µs and 55.0 GB/s (at most" in to_device.text
    # 8 us of call against 55 GB/s: a transfer takes twice the floor at 440 kB
    assert "Up to 256 KiB a pinned copy takes at most 2×" in to_device.text
    assert to_device.records == (f"hosts/{GPU}/transfers.json",)
    assert "to the host" in to_host.text and to_host.effect.estimate == pytest.approx(50 / 8, rel=0.01)


def test_kinds_that_do_not_differ_are_called_undecided(planted):
    same = WAYS | {"h2d.pageable": WAYS["h2d.pinned"]}
    finding = found(planted(ways=same))[0]
    assert finding.status == "not decidable" and finding.missing


def test_a_curve_with_a_step_is_said_to_have_no_floor_and_rate(tmp_path, planted):
    path = planted_transfers.write(tmp_path, GPU)
    record = records.read(path, "transfers")
    point = record["curves"]["h2d.pinned"]["points"][7]  # 64 KiB
    point["host_us"] = {name: 4 * value for name, value in point["host_us"].items()}
    records.write(path, "transfers", record)
    maker = StudyMaker(tmp_path)
    maker.add(GPU, "torch-cuda-eager", "fp16", 1, 128)
    finding = found(collect(maker.plan() | {"transfers": [path]}))[0]
    assert "pinned no floor and rate describe it" in finding.text and "longer at 64 KiB" in finding.text


def test_managed_memory_is_held_against_a_pinned_copy(planted):
    finding = next(one for one in found(planted()) if "pages that move on demand" in one.text)
    assert finding.status == "supported" and finding.effect.estimate == pytest.approx(55 / 9, rel=0.02)
    assert "with a prefetch before the kernel 1.23×" in finding.text
    assert "mapped memory, which the kernel reads on the host, 1.38×" in finding.text


def test_the_rate_between_two_gpus_is_a_finding(planted):
    finding = next(one for one in found(planted(ways=WAYS | PEERS)) if "to another GPU" in one.text)
    assert finding.status == "supported" and finding.effect.estimate == pytest.approx(280 / 30, rel=0.03)
    assert "reaches 277 [272, 283] GB/s with peer access" in finding.text


def test_allocating_in_a_loop_is_held_against_memory_that_is_kept(planted):
    finding = next(one for one in found(planted()) if "allocates" in one.text)
    assert finding.effect.estimate == pytest.approx(240 / 14)
    assert finding.effect.low == pytest.approx(240 * 0.98 / (14 * 1.02))
    assert "by cudaMalloc 240 µs against 11.0 µs" in finding.text
    dear = found(planted(costs={"cuda": (1.0, 1.0, 1.0, 2.0, 1.0), "pool": (9.0, 9.0, 9.0, 9.0, 1.0)}))
    assert next(one for one in dear if "allocates" in one.text).status == "refuted"


@pytest.mark.parametrize(
    ("floor_us", "words"),
    [(8.0, "beyond what the curves say; its cause is open"), (60.0, ", as the curves say"), (4000.0, ", less than")],
)
def test_copies_of_a_model_are_held_against_the_curves(planted, floor_us, words):
    """Planted: they add 162 us in three copies."""
    ways = WAYS | dict.fromkeys(("h2d.pinned", "d2h.pinned"), (floor_us, 50.0))
    finding = found(planted(ways=ways))[-1]
    assert words in finding.text, finding.text
    assert "copies 2 KiB (2 tensors) in and 8 B (1 tensor) out" in finding.text
    assert finding.effect.estimate == pytest.approx(0.1, rel=0.02) and finding.cells
    assert finding.brief.endswith("copies of inputs and outputs add 10.0% to torch-cuda-eager fp16 with pinned memory.")
    assert [one for one in found(planted(ways=ways)) if one.brief] == [finding]


def test_the_section_shows_what_was_measured_and_what_was_not(planted):
    shown = transfer_section.section(planted(d2h_mapped="CudaError: cannot be mapped"))
    assert shown.count("\n## ") == 0 and shown.startswith("## Transfers between host and GPU")
    assert "| to the device: pinned memory" in shown and "8.00 µs and 55.0 GB/s" in shown
    assert "|       100 |    300 µs |        150 µs |        90.0 µs |          60.0 µs |  100 KiB |" in shown
    assert "2 KiB in 2" in shown and "planted torch" in shown
    assert f"`d2h.mapped` on {GPU}: not measured: CudaError: cannot be mapped" in shown
    short = transfer_section.section(planted(), 2)
    assert "planted torch" not in short and "the lab note" in short


def test_a_study_without_transfers_shows_none(tmp_path):
    maker = StudyMaker(tmp_path)
    maker.add(GPU, "torch-cuda-eager", "fp16", 1, 128)
    tables = collect(maker.plan())
    assert transfer_section.section(tables) == "" and found(tables) == [] and tables.copies.empty
    (note,) = transfer_curves.draw(tables).texts
    assert "none was measured" in note.get_text()


def test_the_picture_has_every_way_with_its_times_and_marks_the_models_copies(planted):
    tables = planted()
    figure = transfer_curves.draw(tables)
    to_device, to_host = figure.axes[:2]
    drawn = {line.get_label(): line for line in to_device.get_lines()}
    assert {"pinned", "pageable", "mapped, by a kernel", "managed, on demand", "managed, prefetched"} <= set(drawn)
    curve = curves(tables)[GPU, "h2d.pinned"]
    assert list(drawn["pinned"].get_ydata()) == [time.estimate for time in curve.host]
    assert [text.get_text() for text in to_device.texts] == ["distilbert b1-s128"]
    assert to_device.texts[0].xy[0] == 2048 and to_host.texts[0].xy[0] == 8
    assert to_device.get_ylim() == to_host.get_ylim()


@pytest.mark.parametrize(
    ("nbytes", "words"), [(4, "4 B"), (2048, "2 KiB"), (602112, "588 KiB"), (1 << 28, "256 MiB"), (1025, "1,025 B")]
)
def test_bytes_in_words(nbytes, words):
    assert bytes_in_words(nbytes) == words
