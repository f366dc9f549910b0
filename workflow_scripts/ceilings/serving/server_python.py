"""The Python that a server executes in: a server's packages first, then those of the pipeline, as they are.

So a server executes a model with exactly the versions that the bare cell has. The environment is made anew in a
temporary folder, without pip and without a copy of anything: paths in a file, since Triton's Python reads no variable.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

from ceilings import environment

FOLDER = "CEILINGS_SERVING"
"""Environment variable that names another folder of a server's packages."""

PACKAGES = ("nvidia-pytriton", "mlserver", "tritonclient", "grpcio", "protobuf")
"""What a result of serving depends on beside the pipeline's packages."""

WATCH = "import ceilings.serving.servers.ending as ending; ending.watch()"
"""A line that each start of this Python executes."""

REMEDY = "make .venv/serving installs it, or CEILINGS_SERVING names a folder that has it for this Python"


def packages() -> Path:
    """The folder for a server's packages, be it there or not."""
    named = os.environ.get(FOLDER, "")
    return Path(named).absolute() if named else environment.SCRIPTS.parent / ".venv/serving"


def folder_of(package: str) -> Path | None:
    """The folder that holds a package, of a server's packages or of this Python's own; None where none does.

    A kit and a container have all in one.
    """
    return next((path for path in (packages(), *map(Path, _own_paths())) if (path / package).is_dir()), None)


def problem(package: str) -> str | None:
    """Why there is no server here for lack of a package; None where it is there.

    Args:
        package: A folder's name, such as ``mlserver``.
    """
    if (folder := folder_of(package)) is None:
        return f"{package} is not in {packages()}; {REMEDY}"
    built = {path.name.split(".")[1] for path in (folder / "grpc/_cython").glob("cygrpc.*.so")}
    if built and not any(tag.startswith(f"{sys.implementation.cache_tag}-") for tag in built):
        return f"the packages in {folder} are of another Python ({', '.join(sorted(built))}); {REMEDY}"
    return None


def versions() -> dict[str, str]:
    """Versions of what a server brings itself, by package: of the folder of its packages, or where all is in one."""
    folders = [str(packages())] if packages().is_dir() else _own_paths()
    return {
        name: version
        for name in PACKAGES
        if (version := next((one.version for one in metadata.distributions(name=name, path=folders)), None))
    }


def extend_path() -> None:
    """Let this process import what a client needs of a server's packages; what it has itself comes first."""
    if (folder := str(packages())) not in sys.path:
        sys.path.append(folder)


def make(folder: Path) -> Path:
    """Make the environment below a folder; its Python.

    Args:
        folder: Of the caller, who removes it.
    """
    target = folder / "python"
    venv.EnvBuilder(symlinks=True, with_pip=False).create(target)
    paths = [*([str(packages())] if packages().is_dir() else []), *_own_paths(), str(environment.SCRIPTS)]
    site = target / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    lines = [*paths, WATCH]  # in this order: it is imported from the last of the paths
    (site / "ceilings.pth").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return target / "bin/python3"


def library_folder() -> Path | None:
    """The folder of this Python's shared library; None where it has none, and nothing can embed it."""
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
    places = [Path(folder or "/nowhere"), Path(sys.base_prefix, "lib")]
    return next((place for place in places if name and ".so" in name and (place / name).exists()), None)


def _own_paths() -> list[str]:
    """Folders that this Python imports packages from, in order; none of the standard library's or this project's."""
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    standard |= {str(Path(path, "lib-dynload")) for path in standard}
    excluded = {*standard, str(environment.SCRIPTS), str(packages())}
    return [path for path in sys.path if path and path not in excluded and Path(path).is_dir() and _packages_in(path)]


def _packages_in(path: str) -> bool:
    return Path(path).name in ("site-packages", "dist-packages") or any(Path(path).glob("*.dist-info"))
