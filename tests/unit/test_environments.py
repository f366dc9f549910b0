"""An environment of envs/ installs what requirements/ pins, and has what the programs that run in it import."""

from __future__ import annotations

import itertools
import re
import runpy
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

from ceilings import packages
from ceilings.engines.catalogue import BUILDERS
from ceilings.measure import catalogue as measurements
from ceilings.offline.pins import Target, pinned
from ceilings.runtimes.catalogue import ENVIRONMENTS, RUNTIMES
from ceilings.study import code

PROJECT = Path(__file__).parents[2]
written = runpy.run_path(str(PROJECT / "requirements/environments.py"))
complete, sums = written["complete"], written["sums"]
REQUIREMENTS = PROJECT / "requirements"
LOCKED = ("cpu", "gpu", "vllm", "dev", "clusters", "serving", "kernels")
PYTHON = "3.12"
"""Of every environment."""

RULE = re.compile(r"^rule (\w+):\n((?:    .*\n|\n)+)", re.MULTILINE)

OF_RUNTIMES = [runtime.environment for runtime in RUNTIMES.values()]

BY_NAME = {
    "measuring_environment": OF_RUNTIMES,
    "colocation_environment": OF_RUNTIMES,
    "engine_environment": list(BUILDERS),
    "serving_environment": ["cpu", "gpu"],
    "operator_environment": ["cpu", "gpu"],
    "reading_environment": ["cpu", "gpu"],
}
"""Environments that a function of rules/study.smk names, by the function."""

ELSEWHERE = {
    ("measure_serving", "cpu"): {"grpc", "tritonclient", "cuda"},
    ("measure_serving", "gpu"): {"grpc", "tritonclient"},
    ("build_operator", "cpu"): {"triton"},
}
"""What a program imports that its environment need not have: of .venv/serving, and of a GPU on a CPU."""

ENGINES_ONLY = {"profile_layers"}
"""Programs that refuse a runtime that executes no engine."""


def target(environment: str = "cpu") -> Target:
    """The machine that an environment is for, with its Python."""
    python = next(one for one in content(environment)["dependencies"] if str(one).startswith("python="))
    return Target(python.partition("=")[2], "x86_64", "2.28")


def content(environment: str) -> dict:
    return yaml.safe_load((ENVIRONMENTS / f"{environment}.yaml").read_text())


def environments() -> list[str]:
    return sorted(path.stem for path in ENVIRONMENTS.glob("*.yaml"))


def lines(environment: str) -> list[str]:
    return next(one["pip"] for one in content(environment)["dependencies"] if isinstance(one, dict))


def installed(environment: str) -> dict[str, str]:
    """Version of each package that an environment pins."""
    found = {}
    for name, version in map(exactly, lines(environment)):
        assert name not in found, f"{environment}: {name} stands there twice"
        found[name] = version
    return found


def exactly(line: str) -> tuple[str, str]:
    """Name and version of a line that pins one."""
    requirement = Requirement(line)
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", line
    return canonical(requirement.name), specifier.version


def asked(name: str) -> dict[str, str | None]:
    """Version of each package that we ask for ourselves; None where any will do."""
    texts = (line.partition("#")[0].strip() for line in (REQUIREMENTS / f"{name}.in").read_text().splitlines())
    requirements = [Requirement(text) for text in texts if text]
    return {canonical(one.name): exactly(str(one))[1] if one.specifier else None for one in requirements}


def locked(name: str) -> dict[str, str]:
    return {pin.name: pin.version for pin in pinned(REQUIREMENTS / f"{name}.txt", target())}


def everything_pinned() -> list[tuple[str, dict[str, str]]]:
    """(where, version of each package there) of all files that pin packages."""
    versions = [(f"requirements/{name}.txt", locked(name)) for name in LOCKED]
    versions += [(f"requirements/{name}.in", {k: v for k, v in asked(name).items() if v}) for name in LOCKED]
    return versions + [(f"envs/{name}.yaml", installed(name)) for name in environments()]


BUILDS = {"tensorrt-cu13"}
"""The package of which each environment has the generation that it is called after."""

OTHERS = {"vllm": {"torch", "onnx", "protobuf", "numpy"}, "serving": {"protobuf", "fastapi", "starlette", "setuptools"}}
"""Packages of which what an environment is for needs other versions than the rest."""


def test_a_package_has_one_version_wherever_it_is_pinned():
    for (where, mine), (elsewhere, others) in itertools.combinations(everything_pinned(), 2):
        both = mine.keys() & others.keys() - BUILDS
        if Path(where).stem != Path(elsewhere).stem:
            both -= OTHERS.get(Path(where).stem, set()) | OTHERS.get(Path(elsewhere).stem, set())
        differing = {name for name in both if mine[name] != others[name]}
        assert not differing, f"{where} and {elsewhere} differ in {sorted(differing)}"


def test_a_package_has_the_same_hashes_wherever_it_is_locked():
    """An index has the same files for everybody: a hash that one file lacks, or has alone, is wrong."""
    files = {name: pinned(REQUIREMENTS / f"{name}.txt", target()) for name in LOCKED}
    first: dict[tuple[str, str], tuple[str, set[str]]] = {}
    for name, pins in files.items():
        for pin in pins:
            assert len(pin.hashes) == len(set(pin.hashes)) > 0, f"{pin.name} in {name}.txt"
            where, hashes = first.setdefault((pin.name, pin.version), (name, set(pin.hashes)))
            assert hashes == set(pin.hashes), f"{pin.name} differs between {where}.txt and {name}.txt"


def test_what_was_locked_was_not_edited_since():
    """Also a hash of a package that one file alone has."""
    assert (REQUIREMENTS / "SHA256SUMS").read_text() == sums(), "run make lock"


@pytest.mark.parametrize("name", LOCKED)
def test_what_we_ask_for_is_what_is_locked(name):
    """Else ``make lock`` was forgotten."""
    versions = locked(name)
    for package, version in asked(name).items():
        assert package in versions and version in (None, versions[package]), package


def test_environments_differ_in_their_packages_only():
    """One Python, from one channel: the packages' builds are those of that Python."""
    kinds = {name: (content(name)["channels"], target(name).python) for name in environments()}
    assert set(map(str, kinds.values())) == {str((["conda-forge"], PYTHON))}, kinds
    conda = {name: [one for one in content(name)["dependencies"] if isinstance(one, str)] for name in environments()}
    assert set(map(str, conda.values())) == {str([f"python={PYTHON}", "pip"])}, conda


@pytest.mark.parametrize("environment", environments())
def test_an_environment_holds_all_locked_packages_itself(environment):
    """Snakemake copies the file before it installs it: there, a file that it names does not exist."""
    assert set(content(environment)) == {"channels", "dependencies"}
    assert not [line for line in lines(environment) if line.startswith("-")]
    text = (ENVIRONMENTS / f"{environment}.yaml").read_text()
    assert complete(text) == text, "run make lock"
    assert not {"onnxruntime", "onnxruntime-gpu"} <= set(installed(environment))  # two packages of one module


def rules() -> dict[str, tuple[str | None, str | None]]:
    """Of each rule its ``conda:`` and its program; None where it has none."""
    texts = (path.read_text() for path in sorted((PROJECT / "rules").glob("*.smk")))
    found = {}
    for name, body in itertools.chain.from_iterable(RULE.findall(text) for text in texts):
        conda = re.search(r"^    conda:\n\s+(\S+)$", body, re.MULTILINE)
        program = re.search(r"^    shell:\n(?:\s*#.*\n)*\s+\"(\w+)\.py ", body, re.MULTILINE)
        found[name] = (conda and conda[1], program and program[1])
    return found


def test_every_rule_with_a_program_has_an_environment_that_is_there():
    found = rules()
    assert {"measure_latency", "build_engine", "write_summary", "plan_study"} <= set(found)
    for name, (conda, program) in found.items():
        assert (conda is None) == (program is None), name
        for environment in environments_of(conda, program) if conda else ():
            assert (ENVIRONMENTS / f"{environment}.yaml").is_file(), name


def environments_of(conda: str, program: str | None) -> list[str]:
    """The environments that a rule may run in."""
    if program in ENGINES_ONLY:
        return [runtime.environment for runtime in RUNTIMES.values() if runtime.artifact == "engine"]
    return BY_NAME.get(conda) or [Path(conda.strip('"')).stem]


def test_an_environment_has_what_its_programs_import():
    for name, (conda, program) in rules().items():
        for environment in set(environments_of(conda, program)) if conda else ():
            beside = ELSEWHERE.get((name, environment), set())
            needed = {key: one for key, one in imported(program).items() if one.partition(".")[0] not in beside}
            refuse_missing(environment, needed, name)


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=lambda runtime: runtime.name)
def test_the_environment_of_a_runtime_has_what_measures_it(runtime):
    runners = [f"ceilings.runtimes.{name}" for name in (runtime.module, runtime.generator) if name]
    modules = (*measurements.modules(runtime.device, None), *runners)
    refuse_missing(runtime.environment, imported(*modules), runtime.name)
    has = provided(runtime.environment)
    for alternatives in runtime.packages:
        assert set(alternatives.split("|")) & has, f"{runtime.name} needs {alternatives} in {runtime.environment}"


def imported(*modules: str) -> dict[str, str]:
    """Module by the package that has it, of all that programs or modules import."""
    names = {name for path in code.reached(*modules) for name in code.foreign(path)}
    return {package_of(name): name for name in names}


def package_of(module: str) -> str:
    """The package that an import needs, be it installed here or not."""
    known = {module: package for package, module in packages.MODULES.items()}
    if package := packages.providing(module):
        return package.name
    return next((known[part] for part in parents(module) if part in known), module.partition(".")[0].replace("_", "-"))


def parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def provided(environment: str) -> set[str]:
    """Packages of an environment, a build for one CUDA also without that in its name."""
    names = set(installed(environment))
    if "torch" in names and environment != "cpu":
        names.add("triton")  # torch's builds for CUDA bring the very version that they need
    return names | {re.sub(r"-cu\d+$", "", name) for name in names}


def module_of(package: str) -> str:
    return packages.MODULES.get(package, package)  # onnxruntime-gpu brings the module of onnxruntime


def refuse_missing(environment: str, needed: dict[str, str], who: str) -> None:
    has = {module_of(package) for package in provided(environment)}
    missing = sorted(module for package, module in needed.items() if module_of(package) not in has)
    assert not missing, f"{who} imports {missing}, which envs/{environment}.yaml does not have"
