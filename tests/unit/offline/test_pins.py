"""Which packages a host needs: those pinned for its Python and machine, less what it has."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from ceilings.errors import UserError
from ceilings.offline import pins
from ceilings.offline.pins import Pin, Target

REQUIREMENTS = Path(__file__).parents[3] / "requirements"
HOST = Target("3.12", "x86_64", "2.28")

LINES = """
numpy==2.4.6 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via pandas
contourpy==1.3.3 ; python_full_version < '3.12' \\
    --hash=sha256:cc
contourpy==1.4.0 ; python_full_version >= '3.12' \\
    --hash=sha256:dd
pyreadline3==3.5.6 ; sys_platform == 'win32' \\
    --hash=sha256:ee
hf-xet==1.8.0 ; platform_machine == 'x86_64' \\
    --hash=sha256:ff
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "gpu.txt").write_text(LINES)
    return tmp_path / "gpu.txt"


def names(found):
    return [f"{pin.name}=={pin.version}" for pin in found]


def test_pins_are_those_of_the_host_and_not_of_this_machine(file):
    assert names(pins.pinned(file, HOST)) == ["numpy==2.4.6", "contourpy==1.4.0", "hf-xet==1.8.0"]
    older = Target("3.11", "ppc64le", "2.28")
    assert names(pins.pinned(file, older)) == ["numpy==2.4.6", "contourpy==1.3.3"]


def test_pins_keep_their_hashes(file):
    (numpy, *_) = pins.pinned(file, HOST)
    assert numpy.line() == "numpy==2.4.6 --hash=sha256:aa --hash=sha256:bb"
    assert numpy.line(hashes=False) == "numpy==2.4.6"


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_projects_requirements_are_pins_with_hashes(kind):
    found = pins.pinned(REQUIREMENTS / f"{kind}.txt", HOST)
    assert len(found) > 80 and all(pin.hashes for pin in found)
    assert names(pins.pinned(REQUIREMENTS / "torch.txt", HOST))[0].startswith("torch==")


def test_a_line_that_pins_no_version_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text("numpy>=2\n")
    with pytest.raises(UserError, match="'numpy>=2' pins no version; write NAME==VERSION"):
        pins.pinned(tmp_path / "x.txt", HOST)


FREEZE = """
# printed by pip freeze
numpy==2.5.2
torch==2.11.0+cu130
PyYAML==6.0.3  # the system's
onnxruntime @ file:///build/onnxruntime-1.30.0-cp312-linux_x86_64.whl
-e git+https://example.com/mine.git@0123abc#egg=my_package
-e /home/somebody/else
scipy
"""


def test_what_pip_freeze_prints_is_read(tmp_path):
    (tmp_path / "freeze.txt").write_text(FREEZE)
    assert pins.packages_of_host(tmp_path / "freeze.txt") == {
        "numpy": "2.5.2",
        "torch": "2.11.0+cu130",
        "pyyaml": "6.0.3",
        "onnxruntime": None,
        "my-package": None,
        "scipy": None,
    }


def test_a_file_that_lists_no_packages_is_refused(tmp_path):
    (tmp_path / "freeze.txt").write_text("Package    Version\n---------- -------\nnumpy      2.5.2\n")
    with pytest.raises(UserError, match=r"freeze\.txt: 'Package    Version' names no package; write NAME"):
        pins.packages_of_host(tmp_path / "freeze.txt")
    with pytest.raises(UserError, match=r"gone\.txt cannot be read .* pip freeze"):
        pins.packages_of_host(tmp_path / "gone.txt")


def test_what_the_host_has_stays_out_and_another_version_of_it_does_not():
    pinned = [Pin("numpy", "2.4.6"), Pin("onnx", "1.23.1"), Pin("scipy", "1.0"), Pin("torch", "2.11.0")]
    host = {"numpy": "2.5.2", "onnx": "1.23.1", "scipy": None, "torch": "2.11.0+cu130"}
    assert names(pins.to_carry(pinned, host)) == ["numpy==2.4.6"]
    assert pins.differing(pinned, host) == ["numpy 2.4.6 (there 2.5.2)"]
    assert pins.to_carry(pinned, {}) == pinned


def test_a_requirement_counts_by_the_host_and_its_extras():
    metadata = {
        "requires_dist": [
            "setuptools; python_version >= '3.12'",
            "tomli; python_version < '3.11'",
            "triton==3.6; platform_system == 'Linux' and platform_machine == 'x86_64'",
            "pandas; extra == 'tables'",
        ]
    }
    assert [one.name for one in pins.needed_by(metadata, HOST, ())] == ["setuptools", "triton"]
    assert [one.name for one in pins.needed_by(metadata, HOST, ("tables",))] == ["setuptools", "triton", "pandas"]


def test_wheels_are_asked_for_by_every_name_of_a_platform():
    options = HOST.pip_options
    platforms = options[options.index("--platform") + 1 :: 2]
    assert platforms[0] == "manylinux_2_28_x86_64" and platforms[-1] == "linux_x86_64"
    assert {"manylinux_2_5_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"} <= set(platforms)
    assert "manylinux_2_29_x86_64" not in platforms
    assert "manylinux2014_x86_64" not in Target("3.12", "x86_64", "2.12").pip_options


def test_what_is_built_here_runs_on_a_host_like_this():
    here = ".".join(map(str, sys.version_info[:2]))
    assert Target(here, platform.machine(), "2.28").here
    assert not Target("3.99", platform.machine(), "2.28").here and not Target(here, "s390x", "2.28").here


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("3.10", "x86_64", "2.28"), r"Python is '3\.10'; give one from 3\.11 on, as 3\.12"),
        (("312", "x86_64", "2.28"), "Python is '312'; give one"),
        (("3.12", "x86 64", "2.28"), "machine is 'x86 64'; give it as x86_64"),
        (("3.12", "x86_64", "228"), r"glibc is '228'; give it as 2\.28"),
    ],
)
def test_a_host_that_cannot_be_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        Target(*given)
