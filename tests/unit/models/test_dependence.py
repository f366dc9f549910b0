"""What a latency depends on reaches neither the catalogue nor what makes inputs."""

from __future__ import annotations

import pytest

from ceilings.models.catalogue import FAMILIES
from ceilings.study import code

MODELS = code.SCRIPTS / "ceilings" / "models"
WEIGHTS = {"catalogue", "outline"}
TIMED = WEIGHTS | {"configuration", "definition", "hub", "images", "inputs", "tokens", "weights"}


def reached(*modules: str) -> set[str]:
    """Modules of the room that these import, at any remove."""
    waiting, seen = [code._file(module) for module in modules], set()
    while waiting:
        path = waiting.pop()
        if path is not None and path not in seen and path.suffix == ".py":
            seen.add(path)
            waiting += code._read(path)[1]
    return {str(path.relative_to(MODELS).with_suffix("")) for path in seen if path.is_relative_to(MODELS)}


@pytest.mark.parametrize("module", ["load", "pool", *(family.module for family in FAMILIES.values())])
def test_a_latency_depends_on_no_list_of_models(module: str) -> None:
    name = module if "." in module else f"ceilings.models.{module}"
    assert reached(name)
    assert not reached(name) & TIMED


@pytest.mark.parametrize("program", ["fetch_weights", "make_inputs", "compute_reference"])
def test_weights_inputs_and_references_depend_on_none_either(program: str) -> None:
    assert "weights_folder" in reached(program)
    assert not reached(program) & WEIGHTS


def test_a_family_depends_on_no_other() -> None:
    for family in FAMILIES.values():
        others = {name for name in reached(family.module) if name.startswith("families/")}
        assert others <= {"families/__init__", f"families/{family.name}"}
