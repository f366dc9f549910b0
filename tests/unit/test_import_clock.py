"""Imports are counted by package, wherever they happen, and no more once that is over."""

from __future__ import annotations

import builtins
import importlib
import subprocess
import sys
import time

import pytest

from ceilings import import_clock

SLEEP_S = 0.05


@pytest.fixture
def packages(tmp_path):
    """Two known packages and an unknown one, slow to import: torch imports the unknown one, numpy a part of itself."""
    sources = {
        "torch/__init__.py": f"import time, unknown\ntime.sleep({SLEEP_S})\n",
        "unknown.py": f"import time\ntime.sleep({SLEEP_S})\n",
        "numpy/__init__.py": "def late():\n    from . import part\n",
        "numpy/part.py": f"import time, torch\ntime.sleep({SLEEP_S})\n",
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def in_a_process(folder, code):
    """What a program prints that has the packages of a folder."""
    program = f"import sys, time; sys.path.insert(0, {str(folder)!r}); from ceilings import import_clock\n{code}"
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return eval(done.stdout)


def test_each_moment_counts_for_the_innermost_known_package(packages):
    spent = in_a_process(
        packages, "import_clock.start(); import numpy; numpy.late(); time.sleep(0.2); print(import_clock.stop())"
    )
    ns = SLEEP_S * 1e9
    assert spent["torch"] >= 2 * ns  # with the unknown package that it brings
    assert ns <= spent["numpy"] < spent["torch"]  # a function's own import; without torch, which that brings
    assert sum(spent.values()) < 3 * ns + 0.15e9  # not the wait between them


@pytest.mark.parametrize("statement", ["import unknown", "importlib.import_module('unknown')"])
def test_an_unknown_package_is_counted_as_other(packages, statement):
    code = f"import importlib; import_clock.start(); {statement}; print(import_clock.stop())"
    assert in_a_process(packages, code)["other"] >= SLEEP_S * 1e9


def test_nothing_is_left_behind():
    before = builtins.__import__, importlib.import_module
    import_clock.start()
    import_clock.start()
    assert builtins.__import__ is not before[0]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_module")
    assert import_clock.spent_ns() > 0
    import_clock.stop()
    assert (builtins.__import__, importlib.import_module) == before
    assert import_clock.spent_ns() == 0 and import_clock.stop() == {}


def test_the_age_of_a_process_grows_with_time():
    age = in_a_process("/", "time.sleep(0.3); print(import_clock.age_ns())")
    assert 0.29e9 <= age < 30e9
    first = import_clock.age_ns()
    time.sleep(0.05)
    assert import_clock.age_ns() - first >= 0.03e9  # to a tick of the kernel
