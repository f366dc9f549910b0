"""The summary's section on engines. A whole study's is in tests/workflow/test_engine_targets.py."""

from ceilings.report.render import engine_section as engines
from ceilings.report.tables.evidence import EngineKey, Evidence

KEY = EngineKey("nvidia-h200", "tensorrt11", "distilbert", "int8", "b1-s128")


def record(**changes):
    summary = {
        "layers": [79],
        "products": {"int8": 26, "fp16": 6},
        "attention": {"softmax": 6, "fused": 6},
        "quantized": {"asked": 38, "ran": 37, "elsewhere": {"/lin1/MatMul": ["fp16"]}},
    }
    known = {"status": "ok", "failure": None, "built_by": "pipeline", "builder_version": "11.4.0.106"}
    return {
        **known,
        "seconds": {"parse": 1.0, "build": 30.0},
        "engine_bytes": 96_000_000,
        "summary": summary,
        **changes,
    }


def told(**engines_by_precision):
    return engines.section(Evidence(engines={KEY._replace(precision=k): v for k, v in engines_by_precision.items()}))


def test_products_that_do_not_run_quantised_are_named():
    page = told(int8=record())
    assert "37 of 38" in page and "26 int8, 6 fp16" in page and "6 of 6" in page
    assert "quantised in the graph and not in the engine: `/lin1/MatMul` (fp16)." in page


def test_what_quantisation_adds_is_said_beside_fp16():
    fp16 = record(summary={**record()["summary"], "layers": [65], "quantized": {"asked": 0, "ran": 0, "elsewhere": {}}})
    assert "79 layers where fp16 has 65" in told(int8=record(), fp16=fp16)
    assert "where fp16 has" not in told(int8=fp16, fp16=fp16)


def test_an_engine_from_elsewhere_is_marked_and_what_is_not_known_is_said():
    nothing = {"layers": [], "products": {}, "attention": {"softmax": 6, "fused": 0}}
    nothing["quantized"] = {"asked": 38, "ran": 0, "elsewhere": {"x": ["not found"]}}
    page = told(int8=record(built_by="trtexec", seconds=None, summary=nothing))
    assert "tensorrt11 11.4.0.106, by trtexec" in page
    assert page.count("unknown") == 3 and "not in the engine" not in page


def test_an_engine_that_could_not_be_built_is_not_a_row():
    failure = {"kind": "unsupported", "message": "the parser refuses x"}
    page = told(int8=record(status="failed", failure=failure))
    assert "no engine (unsupported): the parser refuses x" in page and "|" not in page


def test_no_engines_no_section():
    assert engines.section(Evidence()) == ""
