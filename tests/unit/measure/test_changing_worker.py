"""A process that measures changing shapes, on ONNX Runtime's real kernels."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from unit.measure import changing_cell

from ceilings import host as hosts
from ceilings import records, schemas
from ceilings.measure import changing_worker
from ceilings.measure.changing_worker import FEWEST, ROUNDS, Stepper, alone, first_pass
from ceilings.measure.supervisor import supervise
from ceilings.statistics import shape_costs
from ceilings.statistics.shape_tax import tax

SCRIPTS = Path(changing_worker.__file__).parents[2]


def record_of(task, measured):
    content = {
        "cell": task["cell"],
        "run": 1,
        "log": None,
        "padded": False,
        "requests": task["spec"]["requests"],
        **{name: value for name, value in measured.items() if name != "series"},
        "protocol": task["spec"]["protocol"],
    }
    return records.sealed("changing", content)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return changing_cell.make(tmp_path_factory.mktemp("cell"))


@pytest.fixture(scope="module")
def record(task):
    return record_of(task, supervise(task, "ceilings.measure.changing_worker"))


def test_a_process_measures_first_appearances_returns_and_the_sequence(record):
    assert record["status"] == "ok"
    assert record["requests"]["order"] == [0, 1, 0, 2, 1, 1]
    assert len(record["cold"]["latency_ns"]) == 6
    assert record["cold"]["device_bytes"] is None and record["cold"]["graphs"] is None
    assert [len(each) for each in record["sequence_ns"]] == [6] * ROUNDS
    assert all(len(steady) >= FEWEST for reference in record["steady_ns"] for steady in reference)
    assert record["compiled"] is None
    assert set(record["parity"]) == {"b1-s4", "b2-s4", "b1-s8"}


def test_the_first_shape_appears_slower_than_it_is_when_steady(record):
    assert shape_costs.first_ms(record)[0] > shape_costs.steady_ms(record)[0]


def test_a_record_gives_a_shape_tax(record):
    one = tax([shape_costs.rounds_of(record)])
    assert one.estimate > 0 and not one.bounded


def test_each_flag_is_one_in_the_tables_which_join_them():
    requests = {"shapes": ["b1-s4", "b1-s8"], "sorted": True}
    flags = changing_worker._flags({"compiled": [True, False]}, requests)
    assert len(flags) == 2 and not any("; " in flag for flag in flags)
    assert "was sorted" in flags[0] and "b1-s8 run eagerly" in flags[1]


def test_wrong_outputs_at_one_shape_get_no_speed_number(tmp_path):
    task = changing_cell.make(tmp_path, wrong="b1-s8")
    measured = changing_worker.measure(task)
    assert (measured["status"], measured["failure"]["kind"]) == ("failed", "parity")
    assert "sequence_ns" not in measured
    assert record_of(task, measured)["status"] == "failed"


def test_a_damaged_record_is_refused(record):
    for key, value in (
        ("steady_ns", record["steady_ns"][:-1]),
        ("sequence_ns", [record["sequence_ns"][0][:-1], *record["sequence_ns"][1:]]),
        ("return_ns", [[1]] * (ROUNDS + 1)),
        ("requests", {**record["requests"], "order": [0, 1, 0, 2, 1, 3]}),
        ("compiled", [True]),
        ("parity", {}),
    ):
        content = {name: each for name, each in record.items() if name not in records.SEAL}
        assert schemas.flaw("changing", {**content, key: value}), key
    assert json.dumps(record)


class Counting:
    """A runner that says what it was asked; its memory and graphs grow with each new slot."""

    def __init__(self):
        self.asked, self.known = [], set()

    def answer(self, slot):
        self.asked.append(slot)
        self.known.add(slot[0])

    def device_bytes(self):
        return 100 * len(self.known)

    def graphs_compiled(self):
        return len(self.known)


def test_requests_go_through_the_pool_of_their_shape():
    runner = Counting()
    cold = first_pass(Stepper(runner, [["a1", "a2"], ["b1", "b2"]]), [0, 1, 0, 0])
    assert runner.asked == ["a1", "b1", "a2", "a1"]
    assert cold["device_bytes"] == [0, 100, 200]
    assert cold["graphs"] == [0, 1, 2, 2, 2]
    assert len(cold["rss_bytes"]) == 3


def test_each_shape_alone_returns_settles_and_is_timed():
    runner = Counting()
    returns, steady = alone(Stepper(runner, [["a"], ["b"]]), 2, 0)
    count = 1 + changing_worker.SETTLING + FEWEST
    assert runner.asked == ["a"] * count + ["b"] * count
    assert [len(each) for each in steady] == [FEWEST] * 2
    assert len(returns) == 2


@pytest.mark.slow
def test_programs_measure_choose_buckets_and_measure_what_is_padded(task, tmp_path):
    device = hosts.detect({}).device("cpu")
    shapes = task["spec"]["requests"]["shapes"]
    pools = [task["pools"][name] for name in shapes]

    def measure(name, *options):
        command = [
            *(sys.executable, SCRIPTS / "measure_changing.py", "--device", device, "--runtime", "onnxruntime-cpu"),
            *("--model", "tiny", "--precision", "fp32", "--sequence", "mixed", "--spec", json.dumps(task["spec"])),
            *("--artifact", task["artifact"], "--workload", task["workload"], "--inputs"),
            *(*(one["inputs"] for one in pools), "--references", *(one["reference"] for one in pools)),
            *("--output", tmp_path / name, *options),
        ]
        subprocess.run(command, check=True, timeout=100)
        return records.read(tmp_path / name, "changing")

    def choose(name, most):
        limits = json.dumps({"axis": "sequence", "most": most, "memory_mb": None})
        command = [sys.executable, SCRIPTS / "choose_buckets.py", tmp_path / "run1.json", "--limits", limits]
        subprocess.run([*command, "--output", tmp_path / name], check=True, timeout=100)
        return records.read(tmp_path / name, "buckets")

    assert measure("run1.json")["requests"] == task["spec"]["requests"]
    chosen = choose("buckets.json", 2)
    assert chosen["buckets"] == ["b1-s8", "b2-s4"]
    padded = measure("padded1.json", "--buckets", tmp_path / "buckets.json")
    assert padded["padded"] and padded["status"] == "ok"
    assert padded["requests"]["shapes"] == ["b1-s8", "b2-s4"]
    assert padded["requests"]["order"] == [0, 1, 0, 0, 1, 1]
    assert choose("none.json", 1)["status"] == "failed"
    failed = measure("padded2.json", "--buckets", tmp_path / "none.json")
    assert "no buckets were chosen: no choice keeps 1 buckets" in failed["failure"]["message"]
