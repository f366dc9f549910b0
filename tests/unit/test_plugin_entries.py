"""An entry of a plug-in that does not fit is refused while planning, with the plug-in's file and the entry's name."""

import pytest

from ceilings import plugins
from ceilings.errors import UserError
from ceilings.measure import catalogue as measurements
from ceilings.models import catalogue as models
from ceilings.runtimes import catalogue as runtimes

HEAD = """
from ceilings.measure.catalogue import Measurement
from ceilings.models.catalogue import Family
from ceilings.quantity import Quantity
from ceilings.runtimes.catalogue import Runtime

def runtime(**changes):
    given = dict(
        name="mine", stack="Mine", levers=frozenset(), device="cpu", module="mine", artifact="weights",
        environment="cpu", precisions=("fp32",), packages=("numpy",), note="mine",
    )
    return Runtime(**{**given, **changes})

def quantity(**changes):
    given = dict(column="x_ms", label="x", unit="ms", form="number", meaning="X.", source="series.x.latency_ns")
    return Quantity(**{**given, **changes})

def measurement(**changes):
    given = dict(name="mine", module="mine", devices=("cpu",), quantities=(quantity(),), meaning="X.")
    return Measurement(**{**given, **changes})
"""
KINDS = {
    "RUNTIMES": (runtimes.Runtime, runtimes._problem),
    "MEASUREMENTS": (measurements.Measurement, measurements._problem),
    "FAMILIES": (models.Family, models._problem),
}


def entries(tmp_path, monkeypatch, name, text):
    (tmp_path / "catalogue.py").write_text(f"{HEAD}\n{name} = [{text}]\n")
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path))
    return plugins.entries(name, *KINDS[name])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RUNTIMES", "runtime(), runtime(name='other', levers=frozenset({'fusion'}), options={'a': 1})"),
        ("MEASUREMENTS", "measurement(), measurement(devices=('cpu', 'cuda'))"),
        ("FAMILIES", "Family('mine', {'sentence-embedding': ('batch', 'sequence')})"),
    ],
)
def test_what_fits_is_taken(tmp_path, monkeypatch, name, text):
    assert entries(tmp_path, monkeypatch, name, text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("RUNTIMES", "'mine'", r"lists 'mine' in RUNTIMES; make it a Runtime"),
        (
            "RUNTIMES",
            "runtime(artifact='wieghts')",
            r"Runtime 'mine' has artifact = 'wieghts'; it must be one of weights, ",
        ),
        ("RUNTIMES", "runtime(device='gpu')", r"has device = 'gpu'; it must be one of cpu, cuda"),
        ("RUNTIMES", "runtime(precisions=('fp31',))", r"has precisions with 'fp31', which is none of fp32, tf32"),
        ("RUNTIMES", "runtime(precisions='fp32')", r"has precisions = 'fp32'; it must be tuple"),
        ("RUNTIMES", "runtime(precisions=())", r"has no precisions; give some of fp32"),
        ("RUNTIMES", "runtime(environment='cup')", r"has environment with 'cup', which is none of cpu, gpu"),
        ("RUNTIMES", "runtime(levers=frozenset({'speed'}))", r"has levers with 'speed', which is none of CUDA graph"),
        ("RUNTIMES", "runtime(name='my runtime')", r"has a name that cannot stand in a path"),
        ("RUNTIMES", "runtime(name='mine\\n')", r"has a name that cannot stand in a path"),
        (
            "MEASUREMENTS",
            "measurement(quantities=(quantity(form='nubmer'),))",
            r"has in quantities form = 'nubmer'; it must",
        ),
        (
            "MEASUREMENTS",
            "measurement(quantities=(quantity(source=''),))",
            r"the quantity 'x_ms' with source ''; give series",
        ),
        (
            "MEASUREMENTS",
            "measurement(quantities=(quantity(source='x.latency_ns'),))",
            r"with source 'x.latency_ns'; give",
        ),
        ("MEASUREMENTS", "measurement(quantities=('x_ms',))", r"has 'x_ms' among its quantities; make it a Quantity"),
        ("MEASUREMENTS", "measurement(devices=('gpu',))", r"has the device 'gpu'; give cpu, cuda or both"),
        (
            "FAMILIES",
            "Family('mine', {'poetry': ('batch',)})",
            r"Family 'mine' has the task 'poetry', which is none of",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, monkeypatch, name, text, message):
    with pytest.raises(UserError, match=message) as caught:
        entries(tmp_path, monkeypatch, name, text)
    assert str(tmp_path / "catalogue.py") in str(caught.value) and "\n" not in str(caught.value)
