"""Real servers: started, asked over both transports, counted, stopped, and what becomes of them when things fail."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from unit.serving.served_model import ask, element, expected, task

from ceilings import environment, lifetime
from ceilings.errors import CellFailure, UserError
from ceilings.files import write_task
from ceilings.serving import server_python
from ceilings.serving.batching import Batching
from ceilings.serving.kserve import TransportError
from ceilings.serving.servers import server as servers
from ceilings.serving.servers.embedded import Embedded
from ceilings.serving.servers.endpoint import Endpoint
from ceilings.serving.servers.repository import Served
from ceilings.serving.servers.server import Unavailable
from ceilings.serving.servers.triton import Triton
from ceilings.serving.shared_memory import placed
from ceilings.serving.transports import transport

pytestmark = pytest.mark.slow

KINDS = {"embedded": (Embedded, "mlserver"), "triton": (Triton, "pytriton")}


@pytest.fixture(params=KINDS, scope="module")
def kind(request):
    """Each server that can be started here."""
    made, package = KINDS[request.param]
    if problem := server_python.problem(package):
        pytest.skip(problem)
    return made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The task of a tiny model."""
    return task(tmp_path_factory.mktemp("cell"))


@pytest.fixture(scope="module")
def running(kind, tiny, tmp_path_factory):
    """A server with a model that joins nothing and one that joins."""
    models = [Served("plain", tiny), Served("joined", tiny, Batching(4, 100.0, (4,)))]
    with kind(models, tmp_path_factory.mktemp("server"), cores=[min(os.sched_getaffinity(0))]) as server:
        server.stages = server.start()
        yield server


@pytest.fixture
def grpc_here(monkeypatch):
    """gRPC and its messages, which come with the servers' packages."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    server_python.extend_path()
    pytest.importorskip("tritonclient.grpc.service_pb2", reason=server_python.REMEDY)


def test_a_start_has_stages_and_the_server_its_cores(running):
    assert list(running.stages) == ["repository", "process", "ready"]
    assert 0 < running.stages["process"] <= running.stages["ready"]
    assert os.sched_getaffinity(running.pids[0]) == {min(os.sched_getaffinity(0))}


def test_it_executes_with_the_versions_of_the_bare_cell(running):
    made = running.folder / "python/bin/python3"
    code = "import numpy, onnxruntime; print(numpy.__version__, onnxruntime.__version__, onnxruntime.__file__)"
    import onnxruntime

    done = subprocess.run([made, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.split() == [np.__version__, onnxruntime.__version__, onnxruntime.__file__]


@pytest.mark.parametrize("by", ["http", "grpc"])
def test_both_transports_give_the_models_outputs_and_every_request_is_counted(running, grpc_here, by):
    before, sizes = running.counters("plain"), running.batch_sizes("plain")
    for seed in range(5):
        answer = ask(by, running.addresses[by], "plain", element(seed))
        np.testing.assert_allclose(answer["y"], expected(**element(seed)), rtol=1e-5)
    counted = running.since("plain", before, 5)
    assert (counted.requests, counted.failures, counted.executions, counted.inferences) == (5, 0, 5, 5)
    assert running.batch_sizes("plain")[1] - sizes.get(1, 0) == 5
    parts = (counted.queue_ns, counted.compute_input_ns, counted.compute_infer_ns, counted.compute_output_ns)
    assert 0 < sum(parts) <= counted.request_ns


@pytest.mark.parametrize("by", ["http", "grpc"])
def test_tensors_go_through_shared_memory(running, grpc_here, by):
    if not isinstance(running, Triton):
        pytest.skip("MLServer shares no memory")
    inputs, to = element(7), transport(by, running.addresses[by])
    region, places = placed("system", inputs, {"y": 12})
    with contextlib.closing(to), contextlib.closing(region):
        to.register(region)
        asked = {"y": places["y"]}
        answer = to.decode(to.send(to.prepare("plain", inputs, places, asked)), {region.name: region}, asked)
        to.unregister(region)
    np.testing.assert_allclose(answer["y"], expected(**inputs), rtol=1e-5)


def test_requests_at_once_are_joined_and_answered_apart(running):
    before = running.counters("joined")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        address = running.addresses["http"]
        answers = list(pool.map(lambda seed: ask("http", address, "joined", element(seed)), range(8)))
    for seed, answer in enumerate(answers):
        np.testing.assert_allclose(answer["y"], expected(**element(seed)), rtol=1e-5)
    counted = running.since("joined", before, 8)
    assert (counted.requests, counted.inferences) == (8, 8)
    assert counted.executions < 8
    assert sum(size * count for size, count in running.batch_sizes("joined").items()) >= 8


def test_a_bad_request_has_the_servers_words_and_the_next_is_answered(running):
    bad = element(1) | {"x": np.zeros((1, 9), np.float32)}
    with pytest.raises(TransportError, match=r"x"):
        ask("http", running.addresses["http"], "plain", bad)
    with pytest.raises(TransportError, match=r"absent"):
        ask("http", running.addresses["http"], "absent", element(1))
    np.testing.assert_allclose(
        ask("http", running.addresses["http"], "plain", element(1))["y"], expected(**element(1)), rtol=1e-5
    )


def test_its_facts_say_what_executes_and_what_it_costs(running):
    facts = running.facts()
    assert facts["version"]
    (plain,), (joined,) = facts["executor"]["plain"], facts["executor"]["joined"]
    assert list(plain["costs"]) == ["1"] and list(joined["costs"]) == ["1", "2", "3", "4"]
    if isinstance(running, Triton):
        assert running.disagreement("plain") is None


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_as_an_endpoint_it_counts_what_it_can(running, grpc_here, scheme):
    with Endpoint(f"{scheme}://{running.addresses[scheme]}", ["plain/1"]) as endpoint:
        assert endpoint.start()["ready"] > 0
        before = endpoint.counters("plain/1")
        ask(scheme, endpoint.addresses[scheme], "plain/1", element(2))
        counted = endpoint.since("plain/1", before, 1)
        if isinstance(running, Triton):
            assert (counted.requests, counted.executions) == (1, 1)
            assert endpoint.batch_sizes("plain/1") == running.batch_sizes("plain")
        else:  # MLServer has no statistics extension
            assert counted.requests is None and endpoint.batch_sizes("plain/1") is None
    with Endpoint(
        f"{scheme}://{running.addresses[scheme]}", ["plain"], f"http://{running.metrics_address}"
    ) as endpoint:
        endpoint.start()
        assert endpoint.counters("plain").requests == running.counters("plain").requests
    assert servers.answers(running.addresses["http"], "/v2/health/ready")  # not ours to stop


@pytest.mark.parametrize("by", ["metrics", "statistics"])
def test_an_endpoint_sees_what_others_ask_of_its_other_models(running, grpc_here, by):
    scheme = "grpc" if by == "statistics" else "http"
    url = f"http://{running.metrics_address}/metrics" if by == "metrics" else None
    with Endpoint(f"{scheme}://{running.addresses[scheme]}", ["plain"], url) as endpoint:
        endpoint.start()
        before = endpoint.asked("plain")
        if by == "statistics" and not isinstance(running, Triton):
            assert before is None  # MLServer has no statistics extension
            return
        joined, version = endpoint.counters("joined"), next(name for name in before if name.startswith("joined/"))
        ask(scheme, endpoint.addresses[scheme], "plain", element(2))
        ask(scheme, endpoint.addresses[scheme], "joined", element(2))
        endpoint.since("joined", joined, 1)
        now = endpoint.asked("plain")
        assert {model: count - before[model] for model, count in now.items()} == {version: 1}


def test_an_endpoint_without_the_model_or_the_server(running, monkeypatch):
    monkeypatch.setattr("ceilings.serving.servers.endpoint.READY_SECONDS", 0.3)
    absent = Endpoint(f"http://{running.addresses['http']}", ["absent"])
    with absent, pytest.raises(CellFailure, match=r"its model absent at .* is not ready"):
        absent.start()
    (port,) = servers.free_ports(1)
    nobody = Endpoint(f"http://127.0.0.1:{port}", ["plain"])
    with nobody, pytest.raises(CellFailure, match=r"the server at .* is not ready: .*refused"):
        nobody.start()


# ---- ends ------------------------------------------------------------------------------------------------------------


def alive(pids):
    return [pid for pid in pids if lifetime.identity(pid)]


def wait_for_end(pids, seconds=8.0):
    deadline = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive(pids)


def shared_memory(prefix):
    return sorted(path.name for path in Path("/dev/shm").glob(f"{prefix}*"))


def test_after_a_stop_nothing_is_left(kind, tiny, tmp_path):
    with kind([Served("plain", tiny)], tmp_path) as server:
        server.start()
        pids = server.pids
        assert len(pids) == (2 if kind is Triton else 1)
        assert bool(shared_memory(server.shm_prefix)) == (kind is Triton)
    assert not alive(pids)
    assert not shared_memory(server.shm_prefix)
    server.stop()


PARENT = """
import sys, time
from pathlib import Path
from ceilings.serving.servers.{module} import {name}
from ceilings.serving.servers.repository import Served
from ceilings.files import read_json
server = {name}([Served("plain", read_json(sys.argv[1]))], Path(sys.argv[2]))
print(server.shm_prefix, flush=True)
with server:
    server.start()
    print(*server.pids, flush=True)
    time.sleep(60)
"""


def parent_of(kind, of, folder):
    """A process that starts a server, and what its shared memory is called."""
    write_task(folder / "task.json", of)
    (folder / "run").mkdir()
    code = PARENT.format(module=kind.__module__.rpartition(".")[2], name=kind.__name__)
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "task.json"), str(folder / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(environment.SCRIPTS)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    return parent, parent.stdout.readline().strip()


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT], ids=lambda ending: ending.name)
def test_however_its_parent_ends_nothing_is_left(kind, tiny, tmp_path, ending):
    parent, prefix = parent_of(kind, tiny, tmp_path)
    try:
        pids = list(map(int, parent.stdout.readline().split()))
        parent.send_signal(ending)
        parent.wait(15)
        assert pids and not wait_for_end(pids)
        assert not shared_memory(prefix)
    finally:
        parent.kill()
        parent.wait()


@pytest.mark.parametrize("later", [0.0, 0.1, 0.5])
def test_tritons_pythons_end_with_it_also_while_they_start(tiny, tmp_path, later):
    if problem := server_python.problem("pytriton"):
        pytest.skip(problem)
    parent, prefix = parent_of(Triton, tiny, tmp_path)
    try:
        deadline = time.monotonic() + 20
        while not shared_memory(prefix) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(later)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 5
        while (processes_in(tmp_path) or shared_memory(prefix)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not processes_in(tmp_path)
        if not later:  # killed before there was a Python that could: then the next start of a pipeline does
            lifetime.remove_ended(Path(lifetime.SHARED_MEMORY).glob(f"{prefix}*"))
        assert not shared_memory(prefix)
    finally:
        parent.kill()
        parent.wait()


def processes_in(folder):
    """Processes whose command names a folder."""
    found = []
    for pid in lifetime.pids():
        with contextlib.suppress(OSError):
            if str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes() and lifetime.identity(pid):
                found.append(pid)
    return found


# ---- starts that fail ------------------------------------------------------------------------------------------------


def failing(kind, of, folder, **options):
    with kind([Served("plain", of)], folder, **options) as server:
        with pytest.raises((CellFailure, Unavailable)) as caught:
            server.start()
        assert not server.pids
    assert not shared_memory(server.shm_prefix)
    return caught.value


def test_a_model_that_does_not_load_says_why_as_the_bare_cell_does(kind, tiny, tmp_path):
    import onnx
    from onnx import helper

    other = onnx.load(tiny["artifact"])
    other.graph.node.append(helper.make_node("NoSuchOperator", ["y"], ["z"]))
    onnx.save(other, str(tmp_path / "other.onnx"))
    failure = failing(kind, {**tiny, "artifact": str(tmp_path / "other.onnx")}, tmp_path)
    assert failure.kind == "unsupported" and "NoSuchOperator" in str(failure)
    assert (tmp_path / "log").stat().st_size > 0


def test_a_damaged_model_says_so(kind, tiny, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    failure = failing(kind, {**tiny, "artifact": str(tmp_path / "bad.onnx")}, tmp_path)
    assert failure.kind == "damaged" and "bad.onnx" in str(failure)


def test_a_port_that_was_taken_meanwhile_is_given_up_for_another(kind, tiny, tmp_path, monkeypatch):
    free = servers.free_ports
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        choices = [[taken.getsockname()[1], *free(2)], free(3)]
        monkeypatch.setattr(servers, "free_ports", lambda count: choices.pop(0))
        with kind([Served("plain", tiny)], tmp_path) as server:
            server.start()
            assert not choices
            ask("http", server.addresses["http"], "plain", element(1))


def test_without_its_packages_it_is_unavailable(kind, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv(server_python.FOLDER, str(tmp_path / "nothing"))
    failure = failing(kind, tiny, tmp_path)
    assert isinstance(failure, Unavailable) and "make .venv/serving" in str(failure)


def test_another_triton_that_lacks_what_is_asked_for(tiny, tmp_path):
    path = tmp_path / "triton"
    assert "bin/tritonserver is not there" in str(failing(Triton, tiny, tmp_path / "a", path=path))
    (path / "bin").mkdir(parents=True)
    (path / "bin/tritonserver").touch()
    failure = failing(Triton, tiny, tmp_path / "b", path=path, backend="onnxruntime")
    assert "has no onnxruntime backend" in str(failure)
    stub = path / "backends/python/triton_python_backend_stub"
    stub.parent.mkdir(parents=True)
    stub.write_bytes(b"ELF libpython3.8.so.1.0 ")
    failure = failing(Triton, tiny, tmp_path / "c", path=path)
    assert "only for 3.8" in str(failure)


def test_a_program_for_a_newer_system_is_unavailable(tiny, tmp_path):
    path = tmp_path / "triton"
    (path / "bin").mkdir(parents=True)
    (path / "backends/onnxruntime").mkdir(parents=True)
    program = path / "bin/tritonserver"
    for printed, words in (
        ("/lib/libc.so.6: version `GLIBC_9.99' not found (required by x)", "GLIBC_9.99 is not here"),
        ("x: error while loading shared libraries: libnvinfer.so.10: cannot open", "needs libnvinfer.so.10"),
    ):
        program.write_text(f'#!/bin/sh\necho "{printed}" >&2\nexit 127\n'.replace("`", "\\`"))
        program.chmod(0o755)
        folder = tmp_path / words.replace("/", "")
        folder.mkdir()
        failure = failing(Triton, tiny, folder, path=path, backend="onnxruntime")
        assert isinstance(failure, Unavailable) and words in str(failure)


def test_a_server_that_is_never_ready_or_crashes(tiny, tmp_path, monkeypatch):
    path = tmp_path / "triton"
    (path / "bin").mkdir(parents=True)
    (path / "backends/onnxruntime").mkdir(parents=True)
    program = path / "bin/tritonserver"
    monkeypatch.setattr(servers, "READY_SECONDS", 0.5)
    for body, kind, words in (
        ("exec sleep 60", "timed-out", "not ready after 0.5 s"),
        ("kill -SEGV $$", "crashed", "SIGSEGV"),
        (
            'echo "E1127 12:00:00.1 7 server.cc:1] no memory"; exit 3',
            "runtime-error",
            "status 3: server.cc:1] no memory",
        ),
    ):
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        folder = tmp_path / kind
        folder.mkdir()
        failure = failing(Triton, tiny, folder, path=path, backend="onnxruntime")
        assert failure.kind == kind and words in str(failure)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "https://a:1", "http://a", "grpc://a:x", "http://a:1/v2", "http://u@a:1"]
)
def test_what_is_no_endpoint_is_refused(url):
    with pytest.raises(UserError, match="is no endpoint"):
        Endpoint(url, ["m"])
