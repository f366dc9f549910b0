"""A kit on a host: an environment and a checkout without a network, brought up to date by the next kit."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from unit.offline.test_checkout import git

from ceilings import provenance
from ceilings.offline import checkout, install, packing, parts

PROJECT = Path(__file__).parents[3]
GLIBC = os.confstr("CS_GNU_LIBC_VERSION").split()[1]
HERE = {
    "for": "cpu",
    "python": ".".join(map(str, sys.version_info[:2])),
    "machine": os.uname().machine,
    "glibc": GLIBC,
    "host": True,
    "nsys": None,
}


def wheel(folder, name, version, module="x = 1\n", needs=()):
    """A wheel as a builder writes it."""
    needed = "".join(f"Requires-Dist: {one}\n" for one in needs)
    info = f"{name}-{version}.dist-info"
    contents = {
        f"{name}.py": module,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {name: hashlib.sha256(text.encode()).digest() for name, text in contents.items()}
    lines = [f"{n},sha256={base64.urlsafe_b64encode(d).decode().rstrip('=')}," for n, d in digests.items()]
    path = folder / f"{name}-{version}-py3-none-any.whl"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in contents.items():
            archive.writestr(inside, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*lines, f"{info}/RECORD,,"]) + "\n")
    return path


def kit(folder, wheels, **about):
    """Parts with wheels and a checkout whose ceilings is the real one, as pack_kit.py writes them."""
    project = folder / "project"
    (project / ".kit").mkdir(exist_ok=True)
    revision, _ = checkout.pack(project, folder / "project.tar.gz", changes=True)
    groups = [
        {f"wheels/{path.name}": path for path in wheels},
        {install.PROJECT: folder / "project.tar.gz"},
    ]
    told = {**HERE, "revision": revision, **about}
    return parts.cut(groups, "kit", told, packing.program(), folder=folder / "kit", megabytes=1)[1]


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "Snakefile").write_text("rule all:\n")
    (folder / "old.smk").write_text("rule old:\n")
    (folder / "config.yaml").write_text("study: default\n")
    (folder / ".gitignore").write_text(".kit\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


def run(part, *arguments, python=sys.executable):
    """A part as a host runs it: by its Python alone, with none of this checkout on the path."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(part.parent)}
    command = [python, "-P", part, *arguments]
    return subprocess.run(command, cwd=part.parent, env=environment, capture_output=True, text=True, check=False)


def in_environment(folder, code):
    python = folder / ".venv/bin/python"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_a_host_gets_a_kit_and_then_the_next(project, tmp_path):
    """With this Python's pip, which stands behind the kit's packages as a host's do."""
    wheels = [wheel(tmp_path / "w", "alpha", "1.0", "x = 1\n", ["pip", "beta>=2; extra == 'more'"])]
    wheels.append(wheel(tmp_path / "w", "gamma", "1.0", needs=["numpy>=99"]))
    pip = bundled_pip()
    written = kit(tmp_path, [*wheels, pip])
    there = tmp_path / "kit/ceilings"
    done = run(written[0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert in_environment(there, "import alpha; print(alpha.x)") == "1"
    assert (there / "Snakefile").read_text() == "rule all:\n" and (there / ".venv/cpu").exists()
    numpy = metadata.version("numpy")
    assert f"warning: gamma asks for numpy>=99, here is {numpy}" in done.stdout
    assert in_environment(there, "import numpy; print(numpy.__version__)") == numpy  # the host's
    assert not list((there / ".kit").glob("pieces")) and not list((there / ".kit").glob("joined"))
    revision = git(project, "rev-parse", "--short=12", "HEAD").strip()
    assert provenance.project_revision.__wrapped__(there) == revision

    # The next kit: another revision, a package changed in place, one new, one gone. Only its last part is carried.
    (project / "old.smk").unlink()
    (project / "new.smk").write_text("rule new:\n")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "second")
    (there / "mine.yaml").write_text("study: mine\n")
    changed = [wheel(tmp_path / "w", "alpha", "1.0", "x = 2\n"), wheel(tmp_path / "w", "beta", "3.0")]
    written = kit(tmp_path, [*changed, pip])
    done = run(written[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert in_environment(there, "import alpha, beta; print(alpha.x)") == "2"
    gone = "import importlib.util; print(importlib.util.find_spec('gamma'))"
    assert in_environment(there, gone) == "None"
    assert not (there / "old.smk").exists() and (there / "new.smk").exists() and (there / "mine.yaml").exists()

    # A file that was changed here counts as git counts it, and is not lost.
    (there / "config.yaml").write_text("study: edited\n")
    second = git(project, "rev-parse", "--short=12", "HEAD").strip()
    assert provenance.project_revision.__wrapped__(there) == f"{second}+changes"
    (project / "config.yaml").write_text("study: later\n")
    git(project, "commit", "-qam", "third")
    written = kit(tmp_path, [*changed, pip])
    done = run(written[0])
    assert done.returncode == 1 and "error: changed here: config.yaml; keep a copy" in done.stderr
    assert (there / "config.yaml").read_text() == "study: edited\n"
    assert run(written[0], "--replace").returncode == 0
    assert (there / "config.yaml").read_text() == "study: later\n"

    # A file that was changed here and is the same in the next kit stays as it is.
    (there / "config.yaml").write_text("study: edited\n")
    (project / "new.smk").write_text("rule newer:\n")
    git(project, "commit", "-qam", "fourth")
    done = run(kit(tmp_path, [*changed, pip])[-1])
    assert done.returncode == 0 and "Kept as changed here: config.yaml; --replace" in done.stdout, done.stderr
    assert (there / "config.yaml").read_text() == "study: edited\n"
    assert (there / "new.smk").read_text() == "rule newer:\n"


@pytest.mark.slow
def test_the_same_kit_again_mends_what_has_gone(project, tmp_path):
    written = kit(tmp_path, [wheel(tmp_path / "w", "alpha", "1.0"), bundled_pip()])
    there = tmp_path / "kit/ceilings"
    assert run(written[0]).returncode == 0

    def again(*options):
        done = run(written[0], *options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert in_environment(there, "import alpha; print(alpha.x)") == "1" and (there / ".venv/cpu").exists()
        assert not [name for name in ("pieces", "joined") if (there / ".kit" / name).exists()]
        return done.stdout

    assert "Installed already; all of it is there: ceilings, revision " in again()
    (there / "Snakefile").unlink()
    (there / "config.yaml").write_text("study: edited\n")
    assert "Kept as changed here: config.yaml; --replace" in again()
    assert (there / "Snakefile").read_text() == "rule all:\n"
    assert (there / "config.yaml").read_text() == "study: edited\n"
    assert "Kept" not in again("--replace") and (there / "config.yaml").read_text() == "study: default\n"

    # Of the environment: all of it, its Python, a module; without the rest of it and with an empty one in its place.
    shutil.rmtree(there / ".venv")
    assert "Installing 2 packages" in again()
    (there / ".venv/bin/python").unlink()
    assert "Installing 2 packages" in again()
    next(there.glob(".venv/lib/*/site-packages/alpha.py")).unlink()
    assert "Installing 1 packages" in again()
    shutil.rmtree(there / ".venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", there / ".venv"], check=True)
    assert "Installing 2 packages" in again()

    # The packages' parts were deleted, and the environment is lost: the next kit's last part names what it takes.
    shutil.rmtree(there / ".venv")
    (project / "config.yaml").write_text("study: later\n")
    written = kit(tmp_path, [wheel(tmp_path / "w", "alpha", "1.0"), bundled_pip()])
    for part in written[:-1]:
        part.unlink()
    done = run(written[-1])
    assert done.returncode == install.INCOMPLETE and f"missing: {written[0].name}" in done.stdout, done.stderr


def test_what_a_check_of_the_environment_cannot_do_is_one_line(tmp_path):
    """An environment whose Python has no packages at all."""
    from ceilings.errors import UserError

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "empty"], check=True)
    with pytest.raises(UserError, match=r"cannot check the packages: .*No module named 'packaging'; mend that"):
        install.complaints(tmp_path / "empty", {"alpha": "1.0"})


def bundled_pip() -> Path:
    """The pip that Python brings for new environments."""
    import ensurepip

    return next(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))


def test_a_host_waits_for_the_parts_that_are_missing(project, tmp_path):
    big = tmp_path / "big-1.0-py3-none-any.whl"
    big.write_bytes(os.urandom(2 * parts.MEBIBYTE))
    written = kit(tmp_path, [big])
    third, damaged = written[2].rename(tmp_path / "third"), written[1]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    done = run(written[0])
    assert done.returncode == install.INCOMPLETE, done.stderr
    assert done.stdout.splitlines()[1:3] == [f"  damaged: {damaged.name}", f"  missing: {written[2].name}"]
    assert third.exists() and not (tmp_path / "kit/ceilings/.venv").exists()


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (
            {"python": "3.99"},
            "error: this kit is for Python 3.99, and .*; run it with python3.99, or pack again: make kit FOR=",
        ),
        ({"machine": "s390x"}, "error: this kit is for s390x, and this machine is .*; pack again: make kit MACHINE="),
        (
            {"glibc": "2.99"},
            rf"error: this kit needs glibc 2.99, and this machine has {GLIBC}; pack again: make kit GLIBC={GLIBC}",
        ),
    ],
)
def test_a_kit_for_another_machine_is_refused_before_anything_is_written(project, tmp_path, about, message):
    written = kit(tmp_path, [wheel(tmp_path / "w", "alpha", "1.0")], **about)
    done = run(written[0])
    assert done.returncode == 1 and re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "kit/ceilings").exists()


def test_what_travels_is_all_that_it_imports(tmp_path):
    """The list in packing.py holds what the program of a part imports, and it compiles for any Python 3."""
    imported = {f"ceilings/{path.relative_to(packing.PACKAGE)}" for path in packing_imports()}
    assert imported <= set(packing.program())
    compile(packing.START, "__main__.py", "exec")


def packing_imports():
    from ceilings.study import code

    waiting, seen = ["ceilings", "ceilings.offline.install"], set()
    while waiting:
        path = code._file(waiting.pop())
        if path in seen:
            continue
        seen.add(path)
        waiting += [name for name in imported_names(path) if name.startswith("ceilings") and code._file(name)]
    return seen


def imported_names(path):
    import ast

    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{one.name}" for one in node.names))
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names)


def test_packages_of_a_host_are_those_of_its_python():
    assert sysconfig.get_path("purelib") in install.packages_of_this_python()


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside"])
def test_an_archive_with_files_elsewhere_is_refused(tmp_path, name):
    import tarfile

    from ceilings.errors import UserError

    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(UserError, match="which is no file below its folder"):
        install._extract(tmp_path / "x.tar", tmp_path / "to")


def results(folder, name, files):
    """Parts with results of a host, as pack_results.py writes them."""
    import tarfile

    source = folder / name
    for inside, content in files.items():
        (source / inside).parent.mkdir(parents=True, exist_ok=True)
        (source / inside).write_bytes(content)
    with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as tar:
        for inside in files:
            tar.add(source / inside, inside)
    about = {"name": f"results-{name}", "study": "default", "devices": [name]}
    parcel = {install.RESULTS: folder / f"{name}.tar.gz"}
    return parts.cut([parcel], "results", about, packing.program(), folder=folder / f"of-{name}", megabytes=1)[1]


RECORDS = {"config.yaml": b"study: default\n", "results/a.json": b"{}", "results/z.bin": bytes(2 << 20)}


def test_results_are_there_whole_or_not_at_all(tmp_path):
    """A limit for the size of a file ends the first try as a full disk does: after some files."""
    (part,) = results(tmp_path, "h100", RECORDS)
    target = part.parent / "results-h100"
    limited = ["-c", f"ulimit -f 1024; exec {sys.executable} -P {part.name}"]
    done = subprocess.run(["bash", *limited], cwd=part.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "run again: what came stays" in done.stderr, done.stderr
    assert [path.name for path in target.iterdir()] == [install.STATE]
    assert [path.name for path in (target / install.STATE).iterdir()] == ["pieces"]
    done = run(part)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in target.iterdir()) == ["config.yaml", "results"]
    assert all((target / name).read_bytes() == content for name, content in RECORDS.items())

    done = run(part)
    assert done.returncode == 1 and "results-h100 holds 'config.yaml' already; name another folder" in done.stderr
    assert sorted(path.name for path in target.iterdir()) == ["config.yaml", "results"]
    (part.parent / "file").touch()
    done = run(part, "--to", "file")
    assert done.returncode == 1 and "error: file is no folder; name another with --to" in done.stderr


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file/sub", "file/sub cannot be made, since file is no folder"),
        ("link", "link is no folder"),
        ("link/sub", "link/sub cannot be made, since link is no folder"),
    ],
)
@pytest.mark.parametrize("kind", ["kit", "results"])
def test_a_target_that_cannot_be_a_folder_is_refused(tmp_path, project, kind, target, message):
    part = kit(tmp_path, [])[0] if kind == "kit" else results(tmp_path, "h100", {"config.yaml": b"a"})[0]
    (part.parent / "file").touch()
    (part.parent / "link").symlink_to("nowhere")
    done = run(part, "--to", target)
    assert (done.returncode, done.stderr) == (
        1,
        f"error: {message}; name another with --to (make unpack: TO=FOLDER)\n",
    )


def unpack(*arguments, folder):
    """What ``make unpack`` runs at home."""
    command = [sys.executable, PROJECT / "workflow_scripts/unpack_results.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def brought(tmp_path):
    """A folder, with a blank in its name, of the parts of two hosts: one part of one, three of the other."""
    folder = tmp_path / "of my hosts"
    folder.mkdir()
    for name, files in (("h100", {"config.yaml": b"a"}), ("h200", {"x": os.urandom(2 << 20)})):
        for part in results(tmp_path, name, files):
            part.rename(folder / part.name)
    return folder


def test_all_results_of_a_folder_are_unpacked(tmp_path, brought):
    done = unpack(brought, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results-h100/config.yaml").exists() and (tmp_path / "results-h200/x").stat().st_size == 2 << 20
    one = next(brought.glob("*-of-03.pyz"))
    done = unpack(one, "--to", "a folder", folder=tmp_path)
    assert done.returncode == 0 and "--directory 'a folder' --config" in done.stdout
    assert [path.name for path in (tmp_path / "a folder").iterdir()] == ["x"]


def test_two_results_for_one_folder_are_refused_with_their_names(tmp_path, brought):
    done = unpack(brought, "--to", "one", folder=tmp_path)
    assert done.returncode == 1 and done.stderr.count(".pyz") == 2 and "both go to one; unpack one" in done.stderr
    assert not (tmp_path / "one").exists()


def test_what_is_no_part_is_named_beside_what_was_unpacked(tmp_path, brought):
    """An empty first part, a pipe and a part of a parcel of which nothing else came."""
    empty = next(brought.glob("*-01-of-01.pyz"))
    empty.write_bytes(b"")
    first = min(brought.glob("*-of-03.pyz"))
    first.unlink()
    os.mkfifo(first)
    done = unpack(brought, folder=tmp_path)
    assert done.returncode == install.INCOMPLETE, done.stderr
    assert f"damaged: {first.name}" in done.stdout and f"damaged, or no part: {empty.name}" in done.stdout
    assert f"PARTS={tmp_path} holds no part" in unpack(tmp_path, folder=tmp_path).stderr
    assert f"{first} is damaged, or no part" in unpack(first, folder=tmp_path).stderr
    assert "PARTS=nowhere does not exist" in unpack("nowhere", folder=tmp_path).stderr


def test_a_part_that_is_run_names_the_results_that_it_leaves_alone(brought):
    done = run(next(brought.glob("*-of-01.pyz")))
    other = min(brought.glob("*-of-03.pyz"))
    assert done.returncode == 0 and re.search(
        rf"Left alone: results \w+; to unpack it, run \S.*{other.name}", done.stdout
    )


def test_the_makefile_of_a_kit_uses_any_part_that_answers(project, tmp_path):
    big = tmp_path / "big-1.0-py3-none-any.whl"
    big.write_bytes(os.urandom(3 * parts.MEBIBYTE))
    first, second, third, *others = kit(tmp_path, [big])
    parcel = parts.described(first)
    makefile = runpy.run_path(str(PROJECT / "workflow_scripts/pack_kit.py"))["makefile"]
    (first.parent / "Makefile").write_text(makefile(parcel))

    def make():
        command = ["make", f"PYTHON={sys.executable}"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of `make test`
        return subprocess.run(
            command, cwd=first.parent, env=clean, capture_output=True, text=True, check=False, timeout=60
        )

    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:100000])
    third.unlink()
    os.mkfifo(third)
    done = make()
    assert f"unpack] Error {install.INCOMPLETE}" in done.stderr, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:4]] == ["damaged:"] * 3
    for part in others:
        part.unlink()
    done = make()
    assert (
        done.returncode == 2 and f"error: no part here answers {sys.executable} (kit-{parcel.identity}-" in done.stderr
    )
