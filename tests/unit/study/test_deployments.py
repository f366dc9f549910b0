"""Deployments of a study: what is refused and with which words, where they are planned, and what they depend on."""

from __future__ import annotations

import copy
import json

import pytest
from unit.study.test_study import CONFIG, GPU, LAPTOP, SWEEP

from ceilings import records
from ceilings.errors import UserError
from ceilings.host import Host
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.serving import server_python
from ceilings.study import deployments, progress
from ceilings.study.study import Study

CELL, SECOND, WIDE = (f"onnxruntime-cpu/m/{rest}" for rest in ("fp32/b1-s32", "int8/b1-s32", "fp32/b4-s32"))
PLAIN = {"server": "embedded", "cells": [CELL], "concurrency": [1, 4], "rates": [20, "0.8x"]}
BASE = {**CONFIG, "sweeps": {"one": {**SWEEP, "batches": [1, 4], "precisions": ["fp32", "int8"]}}}
SERVER = Host("cpu-test", "Test CPU", 4, GPU, None)
HERE = "results/serving/cpu-test/one/run1.json"


def study(host=LAPTOP, base=BASE, **changes):
    return Study({**copy.deepcopy(base), "serving": {"one": {**PLAIN, **changes}}}, host)


@pytest.fixture
def servers(monkeypatch):
    """As if the servers' packages were installed, and a relay could be."""
    monkeypatch.setattr(deployments, "_lacking", lambda package: None)
    monkeypatch.setattr(deployments, "_no_namespaces", lambda: None)


def batches(**settings):
    return {"batching": {"largest": 8, **settings}}


def endpoint(**changes):
    return {"server": "http://host:8000", "endpoint_models": {CELL: "a/1"}, **changes}


IMPOSSIBLE = [
    ({"server": "tritn"}, 'serving.one.server: "tritn" is not allowed here; use embedded, triton, http://HOST:PORT or'),
    ({"server": "http://host"}, "http://HOST:PORT or grpc://HOST:PORT"),
    ({"cells": []}, "serving.one.cells: must not be empty"),
    ({"cells": [CELL, CELL]}, "stands there more than once"),
    ({"cells": ["onnxruntime-cpu"]}, f"names no cell; write RUNTIME/MODEL/PRECISION/SHAPE, as {CELL}"),
    ({"cells": [CELL.replace("s32", "s64")]}, f"no cell of the study, did you mean '{CELL}'? Else let a sweep ask for"),
    ({"rates": ["0.8"]}, '"0.8" is not allowed; allowed: requests a second above 0 and at most 100000, or a share'),
    ({"rates": ["2"]}, "such as 0.8x; write 2, without quotes"),
    ({"rates": [0]}, "serving.one.rates.0: 0 is not allowed; allowed: requests a second above 0"),
    ({"rates": ["0.8x", "0.80x"]}, "serving.one.rates"),
    ({"rates": [20, 20.0]}, "stands there more than once"),
    ({"concurrency": [], "rates": ["0.8x"]}, "0.8x is a share of a closed loop's throughput; add concurrency"),
    ({"concurrency": [], "rates": []}, "serving.one: asks for no load; add concurrency: [USERS] or rates"),
    ({"concurrency": [4, 4]}, "serving.one.concurrency: 4 stands there more than once"),
    ({"concurrency": [0]}, "a whole number from 1 to 1024"),
    ({"batching": {"delay_ms": 2}}, "serving.one.batching: missing 'largest'; add largest"),
    (batches(delay=2), "serving.one.batching: unknown key 'delay', did you mean 'delay_ms'?"),
    (batches(preferred=4), "serving.one.batching.preferred: 4 is not a list, such as [A, B]; write [4]"),
    ({"batching": {"largest": 0}}, "serving.one.batching.largest: 0 is out of range; give a whole number from 1 to"),
    ({"batching": True}, "serving.one.batching: true is not allowed; allowed: off, or {largest: 8"),
    ({"cells": [WIDE], "batching": {"largest": 2}}, "2 takes no request of b4-s32, which has 4 rows; raise it to a"),
    ({"cells": [WIDE], **batches(preferred=[6])}, "6 is no multiple of the 4 rows of a request of b4-s32"),
    ({"cells": [WIDE], "batching": {"largest": 6}}, "largest: 6 is no multiple of the 4 rows"),
    (batches(preferred=[16]), "preferred: 16 is above largest, 8"),
    ({"server": "triton", "shared_memory": "cuda"}, f"cuda is memory of a GPU, and {CELL} runs on the CPU"),
    ({"shared_memory": "system"}, "serving.one.shared_memory: MLServer knows none"),
    ({"server": "triton", "shared_memory": "system", "round_trip_ms": 5}, "share none over a network; write none"),
    ({"triton": {"backend": "python"}}, "serving.one.triton: the server is embedded; remove the key"),
    ({"server": "triton", "triton": {"backend": "onnxruntime"}}, "has the Python backend alone; name a Triton"),
    ({"server": "triton", "triton": {"path": "/t", "backend": "tensorrt"}}, f"tensorrt reads engines, and {CELL} exec"),
    (
        {"server": "triton", "triton": {"path": "/t", "backend": "onnxruntime"}, **batches(pad=True)},
        "Triton's onnxruntime backend does not pad",
    ),
    ({"endpoint_models": {CELL: "a"}}, "which is started here; remove the key"),
    (endpoint(endpoint_models={}), f"nothing says what http://host:8000 calls {CELL}"),
    (endpoint(endpoint_models={CELL: "a", SECOND: "b"}), f"'{SECOND}' is none of its cells"),
    (endpoint(transport="grpc"), "grpc is asked of http://host:8000; write transport: http"),
    (endpoint(**batches()), "serving.one.batching: http://host:8000 is somebody's server"),
    (endpoint(instances=2), "serving.one.instances: http://host:8000 is somebody's server"),
    (endpoint(server="http://host:99999"), "names no port from 1 to 65535"),
    (endpoint(shared_memory="system"), "share none over a network"),
    (endpoint(metrics="http://host"), '"http://host" is not allowed here; use http://HOST:PORT/PATH of an endp'),
    (endpoint(metrics="grpc://host:8002"), "not allowed here; use http://HOST:PORT/PATH of an endpoint's metrics"),
    (
        endpoint(metrics="http://host:70000/metrics"),
        "serving.one.metrics: http://host:70000/metrics names no port from 1",
    ),
    ({"metrics": "http://host:8002"}, "serving.one.metrics: the server is embedded, whose metrics are known; remove"),
    ({"round_trip": 5}, "serving.one: unknown key 'round_trip', did you mean 'round_trip_ms'?"),
]


@pytest.mark.parametrize(("changes", "message"), IMPOSSIBLE, ids=[message[:60] for _, message in IMPOSSIBLE])
def test_what_cannot_be_is_refused_with_key_value_and_remedy(changes, message):
    with pytest.raises(UserError) as refused:
        study(**changes)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"batching": False},
        {"batching": "off"},
        batches(preferred=[4, 8], pad=True, delay_ms=2),
        {"cells": [WIDE], "batching": {"largest": 6, "pad": True}},
        {"cells": [CELL, SECOND]},
        {"server": "triton", "transport": "grpc", "shared_memory": "system", "instances": 2},
        endpoint(),
        {**endpoint(), "server": "grpc://localhost:8001", "shared_memory": "system"},
        endpoint(server="grpc://[::1]:8001", metrics="http://[::1]:8002"),
    ],
)
def test_what_can_be_is_planned_for_each_fresh_server(changes, servers):
    planned = study(**changes)
    assert planned.targets.served_runs == [f"results/serving/cpu-test/one/run{number}.json" for number in range(1, 6)]
    (entry,) = json.loads(planned.plan())["serving"]
    assert (entry["runs"], entry["reason"]) == (planned.targets.served_runs, None)


def test_a_deployment_without_a_server_learns_what_one_is():
    without = {name: value for name, value in PLAIN.items() if name != "server"}
    with pytest.raises(UserError, match="missing 'server'; add server: embedded, triton, http://HOST:PORT or grpc"):
        Study({**copy.deepcopy(BASE), "serving": {"one": without}}, LAPTOP)


def test_a_model_that_generates_is_refused_with_the_reason():
    sweep = {"models": ["m"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"], "shapes": ["b1-p16-g8"]}
    base = {"study": "s", "models": {"m": {"architecture": "gpt2"}}, "sweeps": {"one": sweep}}
    with pytest.raises(UserError, match="generates text, which is not served yet"):
        study(base=base, cells=["onnxruntime-cpu/m/fp32/b1-p16-g8"])


def test_cells_of_two_devices_are_two_deployments():
    base = copy.deepcopy(BASE)
    base["sweeps"]["two"] = {**SWEEP, "runtimes": ["onnxruntime-cuda"]}
    with pytest.raises(UserError, match="run on two devices; make two deployments"):
        study(SERVER, base, cells=[CELL, "onnxruntime-cuda/m/fp32/b1-s32"])


@pytest.mark.parametrize(
    ("runtime", "changes", "words"),
    [
        ("onnxruntime-cuda-graph", {"triton": {"path": "/t", "backend": "onnxruntime"}}, "captures no CUDA graph, and"),
        ("onnxruntime-cuda-operator", {"triton": {"path": "/t", "backend": "onnxruntime"}}, "graphs of its operators"),
        ("onnxruntime-tensorrt", batches(), "has an engine for batches of 1 alone; set batching: off"),
        ("onnxruntime-cuda", {"triton": {"path": "/t", "backend": "onnxruntime"}}, None),
        ("onnxruntime-tensorrt", {}, None),
    ],
)
def test_what_a_server_cannot_execute_as_the_bare_cell_does(servers, runtime, changes, words):
    base = copy.deepcopy(BASE)
    precision = RUNTIMES[runtime].precisions[0]
    base["sweeps"]["two"] = {**SWEEP, "runtimes": [runtime], "precisions": [precision]}
    asked = {"server": "triton", "cells": [f"{runtime}/m/{precision}/b1-s32"], **changes}
    if words is None:
        assert study(SERVER, base, **asked).deployed
    else:
        with pytest.raises(UserError, match=words):
            study(SERVER, base, **asked)


def test_settings_of_a_session_are_served_where_the_session_is_ours():
    name = "onnxruntime-cpu+arena=off"
    base = copy.deepcopy(BASE)
    base["sweeps"]["two"] = {**SWEEP, "runtimes": [name]}
    elsewhere = {"server": "triton", "cells": [f"{name}/m/fp32/b1-s32"], "triton": {"path": "/t"}}
    study(base=base, **elsewhere)
    elsewhere["triton"]["backend"] = "onnxruntime"
    with pytest.raises(UserError, match=r"without the settings of onnxruntime-cpu\+arena=off; write python, or name a"):
        study(base=base, **elsewhere)


def test_a_graph_of_one_batch_joins_no_requests():
    base = {**BASE, "export": {"axes": {"batch": 1}}, "sweeps": {"one": SWEEP}}
    with pytest.raises(UserError, match="'m' takes batches of 1 alone; set batching: off"):
        study(base=base, **batches())


@pytest.mark.parametrize(
    ("named", "remedy"), [(True, "correct or unset CEILINGS_SERVING"), (False, "make .venv/serving")]
)
def test_missing_packages_make_a_deployment_unavailable(tmp_path, monkeypatch, named, remedy):
    if named:  # where a folder is named, nothing that is made elsewhere helps
        monkeypatch.setenv(server_python.FOLDER, str(tmp_path / "none"))
    else:
        monkeypatch.delenv(server_python.FOLDER, raising=False)
        monkeypatch.setattr(server_python, "packages", lambda: tmp_path / "none")
    deployments._lacking.cache_clear()
    try:
        planned = study()
        (entry,) = json.loads(planned.plan())["serving"]
    finally:
        deployments._lacking.cache_clear()
    if entry["reason"] is None:
        pytest.skip("this Python has mlserver itself")
    assert "mlserver is not in" in entry["reason"] and entry["remedy"] == remedy
    assert entry["runs"] == [] == planned.targets.served_runs


def test_another_triton_that_is_not_there_is_named(servers):
    (one,) = study(server="triton", triton={"path": "/nowhere"}).deployed
    assert "no Triton is in /nowhere" in str(one.available.reason)


def test_cells_that_cannot_run_here_make_the_deployment_unavailable(servers):
    base = {**BASE, "sweeps": {"one": {**SWEEP, "runtimes": ["onnxruntime-cuda"]}}}
    (one,) = study(base=base, cells=["onnxruntime-cuda/m/fp32/b1-s32"]).deployed
    assert one.available.reason == "no CUDA device on this machine" and not one.runs


def test_records_of_another_device_are_read_and_never_made(servers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = {**BASE, "devices": ["auto", "cpu-other"], "protocol": {"processes": 1}}
    for path in ("benchmarks/cpu-other/onnxruntime-cpu/m/fp32/b1-s32", "serving/cpu-other/one"):
        (tmp_path / "results" / path).mkdir(parents=True)
        (tmp_path / "results" / path / "run1.json").write_text("{}")
    planned = study(base=base)
    elsewhere = "results/serving/cpu-other/one/run1.json"
    assert planned.targets.served_runs == [HERE] and elsewhere in planned.targets.recorded_records
    assert [one.recorded for one in planned.deployed] == [False, True]


def several(noise=None, **more):
    """A study of two deployments on a CPU, and which of them it measures a second time."""
    config = {**copy.deepcopy(BASE), "serving": {"one": dict(PLAIN), "two": {**PLAIN, "server": "triton"}}, **more}
    return Study(config if noise is None else {**config, "noise_deployments": noise}, LAPTOP)


@pytest.mark.parametrize(
    ("noise", "twice"), [(None, ["one"]), (["two"], ["two"]), ([], []), (["two", "one"], ["one", "two"])]
)
def test_deployments_are_measured_twice_as_the_noise_between_them(noise, twice, servers):
    planned = several(noise)
    seconds = [one for one in planned.deployed if one.to_json()["aa_of"]]
    assert [one.to_json()["aa_of"] for one in seconds] == twice
    assert [one.runs[0] for one in seconds] == [f"results/serving/cpu-test/{name}.aa/run1.json" for name in twice]
    for name in twice:  # the same server under another name: nothing of it may differ
        assert planned.serving_slice(f"{name}.aa", "cpu-test") == planned.serving_slice(name, "cpu-test")
        assert planned.served(f"{name}.aa", "cpu-test") == planned.served(name, "cpu-test")


def test_one_deployment_alone_is_compared_with_no_other(servers):
    assert [one.name for one in study().deployed] == ["one"]
    assert [one.name for one in several().deployed] == ["one", "two", "one.aa"]


def test_an_unknown_deployment_is_no_noise(servers):
    with pytest.raises(UserError, match=r"noise_deployments: 'tow' is no deployment of the study, did you mean 'two'"):
        several(["tow"])


def test_a_recorded_second_deployment_is_read_and_a_missing_one_is_not_asked_for(servers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (
        "benchmarks/cpu-other/onnxruntime-cpu/m/fp32/b1-s32",
        "serving/cpu-other/one",
        "serving/cpu-other/two",
    ):
        (tmp_path / "results" / path).mkdir(parents=True)
        (tmp_path / "results" / path / "run1.json").write_text("{}")
    of = {"devices": ["cpu-other"], "protocol": {"processes": 1}}
    assert [one.name for one in several(**of).deployed] == ["one", "two"]
    (tmp_path / "results/serving/cpu-other/two.aa").mkdir()
    (tmp_path / "results/serving/cpu-other/two.aa/run1.json").write_text("{}")
    assert [one.name for one in several(**of).deployed] == ["one", "two", "two.aa"]


def test_a_deployment_depends_on_its_own_entry_and_cells():
    def slices(change=lambda config: None):
        config = {**copy.deepcopy(BASE), "serving": {"one": dict(PLAIN), "two": {**PLAIN, "server": "triton"}}}
        change(config)
        made = Study(config, LAPTOP)
        served = tuple(made.slices.serving(name, "cpu-test") for name in ("one", "two"))
        return *served, made.slices.measure("onnxruntime-cpu", "m", "fp32", "cpu-test")

    before = slices()

    def changed(change):
        return [then != now for then, now in zip(before, slices(change), strict=True)]

    def set_in(*place, value):
        def change(config):
            here = config
            for key in place[:-1]:
                here = here.setdefault(key, {})
            here[place[-1]] = value

        return change

    assert changed(set_in("serving", "one", "concurrency", value=[1, 2])) == [True, False, False]
    assert changed(set_in("protocol", "serving", value={"rounds": 4})) == [True, True, False]
    assert changed(set_in("protocol", "serving", value={"limit_ms": 20})) == [False, False, False]
    assert changed(set_in("protocol", "min_seconds", value=2)) == [False, False, True]
    assert changed(set_in("parity", "fp32", value=0.002)) == [True, True, True]
    assert changed(set_in("parity", "int8", value=0.2)) == [False, False, False]
    assert changed(set_in("price_per_hour", value={"cpu-test": 1})) == [False, False, False]


def test_a_server_depends_on_its_own_code_alone():
    from ceilings.serving.deployment import Deployment
    from ceilings.study.code import reached

    def files(server):
        one = Deployment.from_json({"server": server, "cells": [CELL]})
        return {path.name for path in reached(*deployments.modules(one))}

    embedded, triton, there = files("embedded"), files("triton"), files("http://host:1")
    assert "embedded_server.py" in embedded - triton - there
    assert {"triton.py", "triton_model.py"} <= triton - embedded - there
    assert "endpoint.py" in there - embedded - triton
    assert {"windows.py", "http_transport.py", "executor.py", "gate.py"} <= embedded & triton & there
    assert "gpu_watch.py" not in embedded | triton | there
    of_gpu = Deployment.from_json({"server": "triton", "cells": ["onnxruntime-cuda/m/fp32/b1-s32"]})
    assert "gpu_watch.py" in {path.name for path in reached(*deployments.modules(of_gpu))}
    assert not {"worker.py", "bench.py", "catalogue.py", "study.py"} & (embedded | triton | there)


def test_files_of_a_deployment_are_those_of_its_cells():
    served = study(cells=[CELL, SECOND]).served("one", "cpu-test")
    assert served[CELL][:4] == [
        "results/onnx/m/fp32.onnx",
        "results/models/m/inputs/b1-s32.npz",
        "results/models/m/reference/b1-s32.npz",
        "results/models/m/weights/workload.json",
    ]
    assert served[SECOND][0].startswith("results/onnx/m/int8") and "results/onnx/m/fp32.json" in served[CELL]
    with pytest.raises(UserError, match=r"no deployment is called 'ome', did you mean 'one'"):
        study().served("ome", "cpu-test")


def test_the_time_of_a_deployment_follows_from_its_windows(servers):
    seconds = study().expected_seconds["measure_serving"]
    alone = 2 * progress.SERVER_START["cpu"] + progress.AROUND_LOADS + 1 + 4 * 3 * 2
    assert seconds == alone
    batched = study(**batches()).expected_seconds["measure_serving"]
    assert batched == pytest.approx(alone + 2 * 7 * progress.RUNNER_START["cpu"])
    far = study(round_trip_ms=200).expected_seconds["measure_serving"]
    # Each is asked for alone, and then at once for twice as long as that took, in place of a second.
    assert far == pytest.approx(alone + 0.2 * (4 * 3 + 3 * progress.ASKED_ALONE) - 1)


def test_plan_without_deployments_is_a_plan():
    plan = json.loads(Study(CONFIG, LAPTOP).plan())
    assert plan["serving"] == [] and records.sealed("plan", plan)
