"""The Python of a server: whose packages it sees, in which order, and what is said where they are not there."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from ceilings import environment
from ceilings.serving import server_python


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of a server's packages: one that the pipeline has in another version, and one of its own."""
    folder = tmp_path / "packages"
    for name in ("onnxruntime_double", "numpy"):
        (folder / name).mkdir(parents=True)
    (folder / "numpy/__init__.py").write_text("__version__ = 'a server takes NumPy from its own folder first'\n")
    (folder / "grpcio-9.8.dist-info").mkdir()
    (folder / "grpcio-9.8.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: grpcio\nVersion: 9.8\n")
    monkeypatch.setenv(server_python.FOLDER, str(folder))
    return folder


def test_it_sees_a_servers_packages_then_the_pipelines_then_the_project(packages, tmp_path):
    python = server_python.make(tmp_path / "run")
    code = "; ".join(
        (
            "import importlib.util, json, sys, numpy",
            "runtime = importlib.util.find_spec('onnxruntime').origin",
            "print(json.dumps([sys.path, numpy.__version__, runtime]))",
        )
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    path, numpy, onnxruntime = json.loads(done.stdout)
    assert numpy.startswith("a server takes")
    assert onnxruntime == importlib.util.find_spec("onnxruntime").origin
    own = next(entry for entry in path if entry.endswith("site-packages") and str(tmp_path) not in entry)
    assert path.index(str(packages)) < path.index(own) < path.index(str(environment.SCRIPTS))


def test_versions_are_those_of_its_folder(packages):
    assert server_python.versions() == {"grpcio": "9.8"}


def test_a_package_that_is_not_there_is_named_with_the_remedy(packages):
    assert server_python.problem("onnxruntime_double") is None
    said = server_python.problem("mlserver_double")
    assert said.startswith(f"mlserver_double is not in {packages}") and "make .venv/serving" in said


def test_packages_of_another_python_are_said_to_be_so(packages):
    (packages / "grpc/_cython").mkdir(parents=True)
    library = packages / "grpc/_cython/cygrpc.cpython-39-x86_64-linux-gnu.so"
    library.touch()
    assert "of another Python (cpython-39-x86_64-linux-gnu)" in server_python.problem("onnxruntime_double")
    library.rename(library.with_name(f"cygrpc.{sys.implementation.cache_tag}-x86_64-linux-gnu.so"))
    assert server_python.problem("onnxruntime_double") is None


def test_where_all_is_in_one_the_pipelines_own_packages_do(tmp_path, monkeypatch):
    monkeypatch.setenv(server_python.FOLDER, str(tmp_path / "absent"))
    assert server_python.problem("numpy") is None
    assert server_python.versions()["protobuf"]


def test_a_client_imports_what_it_has_itself_first(packages, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    server_python.extend_path()
    server_python.extend_path()
    assert sys.path[-1] == str(packages) and sys.path.count(str(packages)) == 1
