"""The real Python bindings of TensorRT, imported without TensorRT, and what they offer.

The wheels of the bindings are on the ordinary registry; the libraries are not. An empty library of each name that the
extension module needs, with the symbols that it looks for, is enough to import it: every class, method and signature is
there, and nothing does anything.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

WHEELS = {
    "10": ("tensorrt_cu13_bindings==10.16.1.11", "tensorrt_bindings"),
    "11": ("tensorrt_cu13_bindings==11.4.0.106", "tensorrt_bindings"),
    "rtx": ("tensorrt_rtx_cu13_bindings==1.7.1.116", "tensorrt_rtx_bindings"),
}
"""By generation: the package, and the module that it brings."""

SURFACE = Path(__file__).with_name("tensorrt_surface.json")
"""What the classes below offer, by generation: what the double of the runner's tests is made from."""

CLASSES = (
    *("DataType", "ICudaEngine", "IExecutionContext", "ILogger", "IProfiler", "ProfilingVerbosity", "Runtime"),
    "TensorIOMode",
)

DESCRIBE = r"""
import importlib, json, re, sys

def parameters(text):
    # "(self: X, name: str, flag: bool = True) -> bool": [["name", true], ["flag", false]]; true is required
    depth, part, parts = 0, "", []
    for letter in text[text.index("(") + 1 : text.rindex(")") if "->" not in text else text.rindex(") ->")]:
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and not depth:
            parts.append(part)
            part = ""
        else:
            part += letter
    parts = [p.strip() for p in (*parts, part) if p.strip()]
    return [[p.split(":")[0].split("=")[0].strip(), "=" not in p] for p in parts if not p.startswith("self")]

def signatures(name, doc):
    lines = [re.sub(r"^\d+\. ", "", line) for line in (doc or "").splitlines()]
    return [parameters(line) for line in lines if line.startswith(name + "(") and "*args" not in line]

def describe(kind):
    if hasattr(kind, "__members__"):
        return {"members": sorted(kind.__members__)}
    methods, properties, members, values = {}, {}, {}, {}
    for name in dir(kind):
        value = getattr(kind, name)
        if isinstance(value, property):
            properties[name] = value.fset is not None
        elif name == "__init__" or not name.startswith("_"):
            if isinstance(value, type) and hasattr(value, "__members__"):
                members[name] = describe(value)
            elif hasattr(value, "__members__"):
                values[name] = type(value).__name__
            elif found := signatures(name, getattr(value, "__doc__", None)):
                methods[name] = found
    return {"methods": methods, "properties": properties, "classes": members, "values": values}

trt = importlib.import_module(sys.argv[1])
found = {name: describe(getattr(trt, name)) for name in sys.argv[2:]}
print(json.dumps({"version": trt.__version__, "names": sorted(n for n in dir(trt) if n[0] != "_"), "classes": found}))
"""


EMPTY = """
static void *nothing(void) { return 0; }
static void *methods[256] = {[0 ... 255] = (void *)nothing};
static void *object[64] = {methods};
"""


class NotFetched(Exception):
    """The registry does not answer."""


@functools.cache
def fetched(generation: str, folder: Path) -> Path:
    """The bindings of a generation, unpacked, with empty libraries beside them, in a folder that is kept.

    Raises:
        NotFetched: The registry does not answer.
    """
    package, module = WHEELS[generation]
    place = folder / package.replace("==", "-")
    if not (place / "done").is_file():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            place,
            package,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise NotFetched(f"{package} cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
        (wheel,) = place.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(place)
        make_libraries(next((place / module).glob("*.so")), place / "lib")
        (place / "done").touch()
    return place


def make_libraries(extension: Path, folder: Path, vendor: str = "libnv|libtensorrt") -> None:
    """Make a library for each that an extension needs and whose name matches; each has all symbols that are missing.

    Functions that make something return an object whose methods do nothing, all others 0.
    """
    folder.mkdir(exist_ok=True)
    dynamic = subprocess.run(["readelf", "-d", extension], capture_output=True, text=True, check=True).stdout
    listed = subprocess.run(["nm", "-D", "--undefined-only", extension], capture_output=True, text=True, check=True)
    here = ctypes.CDLL(None)
    wanted = re.findall(r"^\s*U (\w+?)(?:@+(\S+))?$", listed.stdout, re.MULTILINE)
    foreign = ("Py", "_Py", "Provider_")
    absent = [(name, group) for name, group in wanted if not name.startswith(foreign) and not hasattr(here, name)]
    absent = [(name, group) for name, group in absent if not group or re.match("lib", group)]
    source, versions = folder / "empty.c", folder / "versions.map"
    functions = (f"void *{n}(void) {{ return {'object' if n == 'getPluginRegistry' else 0}; }}\n" for n, _ in absent)
    source.write_text(EMPTY + "".join(functions))
    groups = sorted({group for _, group in absent if group})
    versions.write_text(
        "".join(f"{g} {{ global: {'; '.join(n for n, group in absent if group == g)}; }};\n" for g in groups)
    )
    versioned = [f"-Wl,--version-script={versions}"] if groups else []
    for name in re.findall(r"NEEDED.*\[(.+)\]", dynamic):
        if re.match(vendor, name):
            command = ["gcc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", *versioned, "-o", folder / name, source]
            subprocess.run(command, check=True)


def run(generation: str, folder: Path, code: str, *arguments: str) -> str:
    """Run Python code with the bindings of a generation importable; its output."""
    place = fetched(generation, folder)
    environment = {**os.environ, "PYTHONPATH": str(place), "LD_LIBRARY_PATH": str(place / "lib")}
    command = [sys.executable, "-P", "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout


def surface(generation: str, folder: Path, classes: tuple[str, ...] = CLASSES) -> dict:
    """What the real bindings offer: version, names of the module, and each class's methods, properties, members."""
    return json.loads(run(generation, folder, DESCRIBE, WHEELS[generation][1], *classes))


def committed() -> dict[str, dict]:
    """The surfaces that are kept beside the tests."""
    return json.loads(SURFACE.read_text())


if __name__ == "__main__":  # python tests/unit/runtimes/real_bindings.py FOLDER: look again, and keep it
    kept = {}
    for each in WHEELS:
        offered = surface(each, Path(sys.argv[1]))
        kept[each] = {"version": offered["version"], "classes": offered["classes"]}
    SURFACE.write_text(json.dumps(kept, separators=(",", ":"), sort_keys=True) + "\n")
