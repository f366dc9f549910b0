"""What Snakemake says of a refused target becomes one line."""

import logging

import pytest

from ceilings.study.plain_errors import PlainErrors

REFUSED = """InputFunctionException in rule measure_latency in file "rules/benchmarks.smk", line 7:
Error:
  UserError: no runtime is called 'x', did you mean 'y'?
Wildcards:
  runtime=x
Traceback:
  File "rules/study.smk", line 149, in measured_artifact"""
BUG = REFUSED.replace("UserError", "KeyError")
FULL = """Traceback (most recent call last):

  File "pulp/mps_lp.py", line 363, in writeMPS
    with open(filename, "w") as f:

OSError: [Errno 28] No space left on device"""
UNKNOWN = "MissingRuleException:\nNo rule to produce {} (if you use input functions make sure that they don't raise)."


@pytest.mark.parametrize(
    ("kind", "text", "line"),
    [
        ("InputFunctionException", REFUSED, "error: no runtime is called 'x', did you mean 'y'?"),
        ("InputFunctionException", BUG, BUG),  # a bug keeps its traceback
        (
            "MissingRuleException",
            UNKNOWN.format("results/sumary.md"),
            "error: nothing makes results/sumary.md, did you mean 'results/summary.md'?",
        ),
        ("MissingRuleException", UNKNOWN.format("x"), "error: nothing makes x, correct its name (snakemake -l)"),
        ("WorkflowError", "another", "another"),
        (
            "OSError",
            FULL,
            "error: Snakemake cannot write below .snakemake or TMPDIR: No space left on device; free some space and "
            "run again: what is finished stays",
        ),
        (
            "OSError",
            f"{FULL}: '/tmp/x.mps'",
            "error: Snakemake cannot write: '/tmp/x.mps': No space left on device; free some space and run again: what "
            "is finished stays",
        ),
        ("OSError", FULL.replace("28", "5"), FULL.replace("28", "5")),
    ],
)
def test_refused_targets(kind, text, line):
    record = logging.makeLogRecord({"msg": text, "exception": kind})
    assert PlainErrors(lambda: ["results/summary.md", "results/report.html"]).filter(record)
    assert record.getMessage() == line
