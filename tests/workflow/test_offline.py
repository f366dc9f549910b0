"""A study on a machine without a network: a kit there, its results home, and the same report of them here."""

from __future__ import annotations

import ensurepip
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tiny import PROJECT, STUDY, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

WITHOUT_NETWORK = ("unshare", "--map-root-user", "--net")
TABLES = ("cells", "runs", "samples", "floors", "budgets")


@pytest.fixture
def host(tmp_path):
    """Runs a command on the host: no route anywhere, an empty home, none of this process's environment."""
    if subprocess.run([*WITHOUT_NETWORK, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody make a network namespace (unshare --net)")
    (tmp_path / "home").mkdir()

    def run(*command, folder=tmp_path / "there"):
        folder.mkdir(exist_ok=True)
        clean = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}
        done = subprocess.run(
            [*WITHOUT_NETWORK, *command], cwd=folder, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def python(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_kit_measures_there_and_its_report_is_made_here(tmp_path, host):
    # All packages stay out but pip, which this Python brings: the host is this machine, so that no test needs an index.
    # As a fresh process sees it: what other tests imported may have put folders of packages on this one's path.
    listing = (
        "from importlib import metadata\nfor one in metadata.distributions(): print(one.name, one.version, sep='==')"
    )
    listed = [line for line in python("-c", listing).splitlines() if not line.lower().startswith("pip==")]
    (tmp_path / "freeze.txt").write_text("\n".join(listed))
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(Path(ensurepip.__file__).parent / "_bundled")}
    packer = PROJECT / "workflow_scripts/pack_kit.py"
    kit = tmp_path / "carried"
    options = ("--kind", "cpu", "--host", tmp_path / "freeze.txt", "--changes", "carry", "--part-mb", "3")
    printed = python(packer, *options, "--output-dir", kit, **pip)
    assert ": 1 wheels, " in printed and "without torch" in printed
    assert len(list(kit.glob("*.pyz"))) > 1

    assert not host("ip", "route")
    first = sorted(kit.glob("*.pyz"))[0]
    assert "Installed in" in host(sys.executable, first)
    there = tmp_path / "there/ceilings"
    (there / "tiny.yaml").write_text(yaml.safe_dump(STUDY))
    activated = ("bash", "-c", '. .venv/bin/activate && "$@"', "-")
    host(*activated, "snakemake", "--cores", "2", "results/summary.md", "--configfile", "tiny.yaml", folder=there)
    host(*activated, "python", "workflow_scripts/pack_results.py", "--study", "tiny.yaml", folder=there)
    assert re.search(r'"project_revision": "\w{12}(\+changes)?"', (there / "results/onnx/tiny/fp32.json").read_text())

    home = tmp_path / "home-coming"
    printed = python(next((there / "brought").glob("*.pyz")), "--to", home)
    target = re.search(r"^  snakemake (.*)$", printed, re.MULTILINE)[1]
    assert "--config 'devices=[\"recorded\"]'" in target
    here = Project(PROJECT)
    arguments = ("results/summary.md", "--directory", str(home), "--config", 'devices=["recorded"]')
    assert set(here.planned(*arguments)) == {"plan_study", "collect_cells", "draw_plot", "write_summary"}
    here.snakemake(*arguments)
    for table in TABLES:
        name = f"results/tables/{table}.parquet"
        pd.testing.assert_frame_equal(pd.read_parquet(home / name), pd.read_parquet(there / name))
    assert (home / "results/summary.md").read_text() == (there / "results/summary.md").read_text()
    assert not list(home.glob("results/models/*/weights/*.safetensors"))
