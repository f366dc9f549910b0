"""Wheels for a host, fetched by the real pip from a folder instead of an index."""

from __future__ import annotations

import io
import tarfile

import pytest
from unit.offline.test_install import wheel

from ceilings.errors import UserError
from ceilings.files import sha256
from ceilings.offline import wheels
from ceilings.offline.pins import Pin, Target

pytestmark = pytest.mark.slow  # pip takes a second a call

HOST = Target("3.99", "x86_64", "2.28")
"""Another Python than any that runs this: markers must be those of the host."""

BACKEND = """
import zipfile
NAME = "source-1.0-{tag}.whl"
def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(folder + "/" + NAME, "w") as archive:
        archive.writestr("source.py", "x = 1")
        archive.writestr("source-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: source\\nVersion: 1.0\\n")
        archive.writestr("source-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: {tag}\\n")
        archive.writestr("source-1.0.dist-info/RECORD", "")
    return NAME
"""


@pytest.fixture
def index(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def pin(path):
    name, version, *_ = path.name.removesuffix(".tar.gz").split("-")
    return Pin(name, version, (f"sha256:{sha256(path)}",))


def source(index, tag):
    """A package that comes as source only, and builds without anything else."""
    contents = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": BACKEND.format(tag=tag),
        "PKG-INFO": "Metadata-Version: 2.1\nName: source\nVersion: 1.0\n",
    }
    with tarfile.open(index / "source-1.0.tar.gz", "w:gz") as tar:
        for name, text in contents.items():
            info = tarfile.TarInfo(f"source-1.0/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return index / "source-1.0.tar.gz"


def test_what_a_package_needs_on_the_host_comes_too(index, tmp_path):
    wheel(index, "beta", "1.0")
    wheel(index, "beta", "2.0")
    wheel(index, "gamma", "1.0", needs=["delta"])
    wheel(index, "delta", "1.0")
    needs = ["beta", "gamma; python_version >= '3.99'", "windows; sys_platform == 'win32'", "numpy"]
    wheel(index, "big", "1.0", needs=needs)
    pinned = [pin(wheel(index, "numpy", "2.4.6"))]
    gathered = wheels.gather(pinned, [Pin("big", "1.0")], {"beta": "1.0"}, HOST, tmp_path / "kept")
    assert [path.name.split("-")[0] for path in gathered] == ["big", "delta", "gamma", "numpy"]
    # The host's version is a limit where its package is wanted, and what it does not have comes in the newest version.
    found = wheels.closure([Pin("big", "1.0")], pinned, {}, HOST)
    assert {(one.name, one.version) for one in found} == {(n, "1.0") for n in ("big", "gamma", "delta")} | {
        ("beta", "2.0")
    }


def test_a_wheel_that_is_not_the_pinned_one_is_refused(index, tmp_path):
    other = Pin("alpha", "1.0", (f"sha256:{'0' * 64}",))
    wheel(index, "alpha", "1.0")
    with pytest.raises(UserError, match=r"pip download failed: .*THESE PACKAGES DO NOT MATCH THE HASHES"):
        wheels.gather([other], [], {}, HOST, tmp_path / "kept")


def test_a_set_that_does_not_fit_together_is_refused_with_pips_reason(index, tmp_path):
    wheel(index, "big", "1.0", needs=["beta>=2"])
    wheel(index, "beta", "1.0")
    with pytest.raises(UserError, match=r"pip install failed: ERROR: .*beta>=2"):
        wheels.gather([], [Pin("big", "1.0")], {}, HOST, tmp_path / "kept")


def test_a_package_that_comes_as_source_is_built_once(index, tmp_path, capsys):
    asked = [pin(source(index, "py3-none-any"))]
    for _ in range(2):
        (built,) = wheels.gather(asked, [], {}, HOST, tmp_path / "kept")
        assert built.name == "source-1.0-py3-none-any.whl"
    assert capsys.readouterr().out.count("Building a wheel of source 1.0") == 1


def test_a_built_wheel_for_this_machine_alone_is_refused_for_another(index, tmp_path):
    asked = [pin(source(index, "cp399-cp399-linux_x86_64"))]
    with pytest.raises(UserError, match=r"source 1\.0 comes as source only, and its wheel is for this machine alone"):
        wheels.gather(asked, [], {}, HOST, tmp_path / "kept")
