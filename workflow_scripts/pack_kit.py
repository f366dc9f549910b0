#!/usr/bin/env python3
"""Pack the project and the packages it needs for a host without a network, in parts of a size (docs/offline.md)."""

import argparse
import platform
import time
from pathlib import Path

from ceilings import lifetime
from ceilings.errors import UserError
from ceilings.files import expanded
from ceilings.offline import checkout, install, packing, parts, pins, profiler, wheels
from ceilings.offline.pins import Pin, Target
from ceilings.program import main

GLIBC, SERVING_GLIBC = "2.28", "2.35"
"""The C library that most wheels take, and the one that nvidia-pytriton's does (Ubuntu 22.04, Debian 12)."""

PROJECT = Path(__file__).parents[1]
REQUIREMENTS = PROJECT / "requirements"


def work(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    parts.refuse_used(arguments.output_dir, "kit")
    glibc = arguments.glibc or (SERVING_GLIBC if arguments.serving else GLIBC)
    target = Target(arguments.python, arguments.machine, glibc)
    if arguments.serving and target.newest < Target(target.python, target.machine, SERVING_GLIBC).newest:
        raise UserError(f"--serving: nvidia-pytriton has no wheel for glibc {glibc}; it takes {SERVING_GLIBC} or newer")
    nsys = profiler.program(arguments.nsys) if arguments.nsys else None
    host = pins.packages_of_host(arguments.host) if arguments.host else {}
    pinned = pins.pinned(REQUIREMENTS / f"{arguments.kind}.txt", target)
    torch = [] if pinned_torch(pinned) else pins.pinned(REQUIREMENTS / "torch.txt", target)
    carries_torch = arguments.torch == "carry" or (arguments.torch == "auto" and "torch" not in host)
    if arguments.serving:
        servers = pins.pinned(REQUIREMENTS / "serving.txt", target)
        pinned, host = replaced(pinned, servers), of_known_versions(host, servers)
    pinned = without(pinned, arguments.exclude)
    if differing := pins.differing(pinned, host):
        print(f"Carried in the pinned versions: {', '.join(differing)}")
    keep = PROJECT / ".kit" / f"wheels-{arguments.kind}-{target.minor}-{target.machine}"
    with lifetime.temporary_folder(arguments.output_dir.absolute().parent) as scratch:
        revision, names = checkout.pack(PROJECT, Path(scratch) / install.PROJECT, arguments.changes == "carry")
        print(f"Fetching wheels for Python {target.python} on {target.machine}, glibc {target.glibc}", flush=True)
        gathered = wheels.gather(pinned, [own_pip(), *(torch if carries_torch else ())], host, target, keep)
        groups = [{f"{install.WHEELS}{path.name}": path for path in gathered}]
        if arguments.nsys:
            profiler.pack(arguments.nsys, Path(scratch) / install.NSYS)
            groups.append({install.NSYS: Path(scratch) / install.NSYS})
        groups.append({install.PROJECT: Path(scratch) / install.PROJECT})
        about = {
            "for": arguments.kind,
            "python": target.minor,
            "machine": target.machine,
            "glibc": target.glibc,
            "revision": revision,
            "host": bool(host) or not carries_torch,
            "nsys": nsys,
        }
        parcel, written = parts.cut(
            groups, "kit", about, packing.program(), folder=arguments.output_dir, megabytes=arguments.part_mb
        )
    (arguments.output_dir / parts.MAKEFILE).write_text(makefile(parcel), encoding="utf-8")
    size = sum(path.stat().st_size for path in written) / parts.MEBIBYTE
    print(
        f"{arguments.output_dir}: {len(written)} parts, {size:.0f} MiB: {len(gathered)} wheels, {len(names)} files of "
        f"revision {revision}{', torch' if carries_torch else ', without torch'}; {time.monotonic() - began:.0f} s"
    )
    print(f"Carry the folder, and there: make unpack, or python{target.minor} {written[0].name}")


MAKEFILE = """# Unpacks the kit that lies beside it: with any part that answers.
PYTHON ?= python3
TO :=
REPLACE :=
unpack:
\t@for part in KIT-*.pyz; do \\
\t\tif test -f "$$part" && $(PYTHON) "$$part" --help 2>/dev/null | grep -q "Unpack the parts"; then \\
\t\t\texec $(PYTHON) "$$part" $(if $(TO),--to '$(subst ','\\'',$(TO))') $(if $(REPLACE),--replace); \\
\t\tfi; \\
\tdone; \\
\techo "error: no part here answers $(PYTHON) (KIT-*.pyz); carry one again, or set PYTHON to 3.11 or newer" >&2; exit 1
.PHONY: unpack
"""


def makefile(parcel: parts.Parcel) -> str:
    """The Makefile that goes with a kit."""
    return MAKEFILE.replace("KIT", f"kit-{parcel.identity}")


def pinned_torch(pinned: list[Pin]) -> bool:
    """Whether requirements pin torch themselves, because something there needs one version of it."""
    return any(pin.name == "torch" for pin in pinned)


def without(pinned: list[Pin], names: str) -> list[Pin]:
    """The pins but for some that no model of the user needs.

    Raises:
        UserError: Nothing pins one of them.
    """
    left_out = {pins.canonical(name) for name in filter(None, names.split(","))}
    if unknown := sorted(left_out - {pin.name for pin in pinned}):
        raise UserError(f"--exclude names {unknown[0]!r}, which the requirements do not have; correct or drop it")
    return [pin for pin in pinned if pin.name not in left_out]


def replaced(pinned: list[Pin], others: list[Pin]) -> list[Pin]:
    """The pins with others, which count where both have a package: one environment has one version of it."""
    names = {pin.name for pin in others}
    return [*(pin for pin in pinned if pin.name not in names), *others]


def of_known_versions(host: dict[str, str | None], servers: list[Pin]) -> dict[str, str | None]:
    """What a host has, without what servers need and whose version nobody knows.

    The messages of servers are made for one protobuf, and fail with an older one.
    """
    needed = {pin.name for pin in servers}
    return {name: version for name, version in host.items() if version is not None or name not in needed}


def own_pip() -> Pin:
    """The pip that packs also installs: not every host has one."""
    from importlib.metadata import version

    return Pin("pip", version("pip"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kind", choices=("cpu", "gpu", "vllm"), required=True, help="which requirements the host needs"
    )
    parser.add_argument("--python", default=platform.python_version().rpartition(".")[0], help="its Python (3.12)")
    parser.add_argument("--machine", default=platform.machine(), help="what `uname -m` says there (x86_64)")
    parser.add_argument("--glibc", help=f"its C library at least ({GLIBC}; with --serving {SERVING_GLIBC})")
    parser.add_argument(
        "--host", type=expanded, help="packages that it has, a NAME or NAME==VERSION a line: a pip freeze"
    )
    parser.add_argument(
        "--torch", choices=("auto", "carry", "host"), default="auto", help="auto: unless the host has it"
    )
    parser.add_argument("--nsys", type=expanded, help="folder of Nsight Systems to carry too")
    parser.add_argument("--changes", choices=("refuse", "carry"), default="refuse", help="of uncommitted files")
    parser.add_argument(
        "--exclude", default="", metavar="NAME,...", help="packages that stay out, needed by no model there"
    )
    parser.add_argument("--serving", action="store_true", help="servers too, as make .venv/serving installs them")
    parser.add_argument("--part-mb", type=int, default=50, help="size of a part at most, in MiB")
    parser.add_argument("--output-dir", type=expanded, default=Path("kit"), help="folder of the parts")
    main(work, parser)
