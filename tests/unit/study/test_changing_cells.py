"""What a study asks of changing shapes: its cells, what is refused, and what each record depends on."""

import copy
import dataclasses
import json

import pytest

from ceilings.errors import UserError
from ceilings.host import Host
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.next_cells import next_study
from ceilings.study.study import Study

LAPTOP = Host("cpu-test", "Test CPU", 4, None, "no CUDA device on this machine")
CONFIG = {
    "study": "s",
    "models": {
        "text": {"architecture": "bert", "config": {"max_position_embeddings": 64}, "weights": "random"},
        "image": {"architecture": "vit", "task": "image-embedding", "config": {"image_size": 32, "patch_size": 16}},
        "words": {"architecture": "gpt2", "weights": "random"},
    },
    "sweeps": {
        "text": {
            "models": ["text"],
            "runtimes": ["onnxruntime-cpu", "torch-eager"],
            "precisions": ["fp32"],
            "batches": [1],
            "sequences": [32],
        },
        "image": {"models": ["image"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"], "batches": [1]},
    },
    "sequences": {"mixed": {"order": "alternating", "axes": {"batch": [1, 2], "sequence": [16, 32]}, "requests": 8}},
    "changing": {"cells": ["*/text/fp32/mixed"]},
}
FOLDER = "results/changing/cpu-test/onnxruntime-cpu/text/fp32/mixed"


def study(change=lambda config: None):
    config = copy.deepcopy(CONFIG)
    change(config)
    return Study(config, LAPTOP)


def test_a_pattern_names_cells_of_the_sweeps_with_a_sequence():
    planned = study().changing
    assert [cell.identity for cell in planned] == ["onnxruntime-cpu/text/fp32/mixed", "torch-eager/text/fp32/mixed"]
    assert planned[0].runs == tuple(f"{FOLDER}/run{number}.json" for number in range(1, 6))
    assert (planned[0].buckets, planned[0].padded) == (None, ())
    assert json.loads(study().plan())["changing"][0]["sequence"] == "mixed"


def test_a_study_without_them_has_the_plan_that_it_had():
    def without(config):
        del config["sequences"], config["changing"]

    assert study(without).changing == []
    assert "changing" not in json.loads(study(without).plan())


def test_buckets_are_asked_of_models_with_the_axis_only():
    def padded(config):
        config["changing"] = {"cells": ["onnxruntime-cpu/*/fp32/*"], "buckets": {"most": 2}}

    text, image = study(padded).changing
    assert text.buckets == f"{FOLDER}/buckets.json"
    assert len(text.padded) == len(text.runs) == 5
    assert (image.buckets, image.padded) == (None, ())
    assert set(text.padded) <= set(study(padded).targets.changing_records)
    assert json.loads(study(padded).bucket_limits) == {"axis": "sequence", "memory_mb": None, "most": 2}


def test_requests_of_one_length_are_not_padded():
    def batches(config):
        config["sequences"]["mixed"] = {"order": "alternating", "axes": {"batch": [1, 2], "sequence": [16]}}
        config["changing"]["buckets"] = {"most": 2}

    for cell in study(batches).changing:
        assert (cell.buckets, cell.padded) == (None, ())


def test_a_record_depends_on_its_requests_and_on_nothing_of_another_sequence():
    names = ("onnxruntime-cpu", "text", "fp32", "mixed", "cpu-test")
    before = study().slices.changing(*names)

    def more(config):
        config["sequences"]["other"] = {"order": "alternating", "shapes": ["b1-s16"]}
        config["protocol"] = {"processes": 9}

    def longer(config):
        config["sequences"]["mixed"]["requests"] = 9

    assert study(more).slices.changing(*names) == before
    assert study(longer).slices.changing(*names) != before
    assert json.loads(before)["requests"]["shapes"] == ["b1-s16", "b1-s32", "b2-s16", "b2-s32"]
    assert json.loads(before)["module"] == "onnxruntime_changing_cpu"


def test_a_fixed_cell_depends_on_no_sequence():
    def other(config):
        config["sequences"]["mixed"]["requests"] = 9

    fixed = ("onnxruntime-cpu", "text", "fp32", "cpu-test")
    assert study().slices.measure(*fixed) == study(other).slices.measure(*fixed)


def test_inputs_and_references_are_those_of_the_shapes_in_their_order():
    inputs, references = study().changing_pools("text", "mixed")
    assert inputs == [f"results/models/text/inputs/{name}.npz" for name in ("b1-s16", "b1-s32", "b2-s16", "b2-s32")]
    assert references[0] == "results/models/text/reference/b1-s16.npz"


def test_images_take_their_only_size():
    inputs, _ = study().changing_pools("image", "mixed")
    assert inputs == ["results/models/image/inputs/b1-i32.npz", "results/models/image/inputs/b2-i32.npz"]


def test_a_log_is_read_again_once_it_changed(tmp_path):
    log = tmp_path / "log.csv"

    def replayed(config):
        config["sequences"]["mixed"] = {"order": "replayed", "file": str(log)}

    log.write_text("length\n16\n32\n")
    assert len(study(replayed).changing_pools("text", "mixed")[0]) == 2
    log.write_text("length\n16\n32\n48\n")
    assert len(study(replayed).changing_pools("text", "mixed")[0]) == 3


def sequences(**given):
    return lambda config: config["sequences"].update(mixed=given)


def changing(**given):
    return lambda config: config["changing"].update(given)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (changing(cells=["*/text/fp32/mixd"]), r"changing.cells: .*fits no cell of the study with a sequence, did you"),
        (changing(cells=["*/words/fp32/mixed"]), r"changing.cells: .*fits no cell"),
        (changing(buckets={"most": 0}), r"changing.buckets.most: 0 is out of range"),
        (changing(buckets={"axis": "sequence"}), r"changing.buckets: missing 'most'"),
        (changing(buckets={"most": 2, "axis": "image"}), r"buckets.axis: no model of its cells has 'image'"),
        (changing(cells=[], buckets={"most": 2}), r"changing.buckets: needs changing.cells"),
        (lambda config: config.pop("sequences"), r"needs sequences, and the study has none"),
        (sequences(order="alternating"), r"sequences.mixed: give either shapes or axes"),
        (sequences(order="shuffled", shapes=["b1-s16"]), r"sequences.mixed.order: \"shuffled\" is not allowed"),
        (sequences(order="drawn", shapes=["b1-s16"], requests=1), r"sequences.mixed.requests: 1 is out of range"),
        (
            sequences(order="alternating", shapes=["b1-s16", "b1-s65"]),
            r"sequences.mixed: b1-s65: 'text' takes at most 64 as sequence",
        ),
        (sequences(order="alternating", shapes=["b1"]), r"sequences.mixed: b1 gives no size of sequence"),
        (sequences(order="alternating", shapes=["b1-s16.half"]), r"the lengths 'half' are unknown"),
        (sequences(order="replayed", file="missing.csv"), r"sequences.mixed: missing.csv cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_while_planning(change, problem):
    with pytest.raises(UserError, match=problem):
        study(change)


def speech(config):
    config["models"]["speech"] = {"architecture": "wav2vec2", "weights": "random"}
    config["sweeps"]["speech"] = {**config["sweeps"]["text"], "models": ["speech"], "axes": {"samples": [16000]}}
    del config["sweeps"]["speech"]["sequences"]


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ([399], r"sweeps.speech: samples 399 is less than 'speech' needs, 400"),
        ([400], r"sequences.mixed: b1-samples80: 'speech' needs at least 400 as samples"),
    ],
)
def test_a_recording_that_is_shorter_than_the_convolutions_is_refused(samples, problem):
    def change(config):
        speech(config)
        config["sweeps"]["speech"]["axes"] = {"samples": samples}
        config["sequences"]["mixed"] = {"order": "alternating", "shapes": ["b1-samples80", "b1-samples1600"]}
        config["changing"]["cells"] = ["*/speech/fp32/mixed"]

    with pytest.raises(UserError, match=problem):
        study(change)


def test_a_log_with_a_shape_that_the_model_cannot_take_is_refused_by_its_file(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("length\n16\n600\n")
    with pytest.raises(UserError, match=r"sequences.mixed \(.*log.csv\): b1-s600 \(line 3\): 'text' takes at most 64"):
        study(sequences(order="replayed", file=str(log)))


def test_models_that_generate_are_refused():
    def generating(config):
        config["sweeps"]["words"] = {
            "models": ["words"],
            "runtimes": ["torch-eager"],
            "precisions": ["fp32"],
            "axes": {"batch": [1], "prompt": [8], "generated": [4]},
        }
        config["changing"]["cells"] = ["torch-eager/words/fp32/mixed"]

    with pytest.raises(UserError, match="generates text"):
        study(generating)


def test_a_runtime_without_a_runner_of_changing_shapes_is_listed_with_the_reason(monkeypatch):

    monkeypatch.setitem(RUNTIMES, "torch-eager", dataclasses.replace(RUNTIMES["torch-eager"], changing=""))
    cells = {cell.runtime: cell for cell in study().changing}
    assert cells["torch-eager"].available.reason == "torch-eager has no runner of changing shapes"
    assert cells["torch-eager"].runs == () and cells["onnxruntime-cpu"].runs
    with pytest.raises(UserError, match="no runner of changing shapes"):
        study().changing_artifact("torch-eager", "text", "fp32", "mixed", "cpu-test")


def test_a_study_of_what_comes_next_names_no_sequence_of_cells_that_it_has_not():
    cells = ["onnxruntime-cpu-fused/text/fp32/b1-s32", "onnxruntime-cpu/text/fp32/b1-s32"]
    config = {**copy.deepcopy(CONFIG), "changing": {"cells": ["torch-eager/text/fp32/mixed"]}}
    planned = Study(next_study(config, cells), LAPTOP)
    assert [cell.identity for cell in planned.cells if not cell.aa_of] == cells and not planned.changing


ELSEWHERE = "cpu-other"


def brought(results, *names, sequence="mixed"):
    """Records of another device; only that they are there counts for planning."""
    fixed = results / "benchmarks" / ELSEWHERE / "onnxruntime-cpu/text/fp32/b1-s32"
    changing = results / "changing" / ELSEWHERE / f"onnxruntime-cpu/text/fp32/{sequence}"
    for path in (*(fixed / f"run{number}.json" for number in (1, 2)), *(changing / name for name in names)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(changing)


def elsewhere(results, devices=("auto", ELSEWHERE)):
    config = copy.deepcopy(CONFIG) | {"devices": list(devices), "protocol": {"processes": 2}}
    config["changing"]["buckets"] = {"most": 2}
    made = Study(config, LAPTOP, str(results))
    return made, [cell for cell in made.changing if cell.device == ELSEWHERE]


def test_records_of_another_device_are_read_and_never_made(tmp_path):
    names = ("run1.json", "run2.json", "buckets.json", "padded1.json", "padded2.json")
    folder = brought(tmp_path, *names)
    made, (one,) = elsewhere(tmp_path)
    assert one.recorded and one.records == [f"{folder}/{name}" for name in names]
    assert set(one.records) <= set(made.targets.recorded_records)
    assert not set(one.records) & set(made.targets.changing_records)
    assert [cell.device for cell in made.changing if not cell.recorded] == ["cpu-test"] * 2
    alone, _ = elsewhere(tmp_path, [ELSEWHERE])
    assert alone.targets.changing_records == [] and "changing" in alone.targets.parts
    assert json.loads(alone.plan())["changing"][0]["recorded"]


def test_padding_that_was_not_brought_whole_leaves_the_choice_alone(tmp_path):
    brought(tmp_path, "run1.json", "run2.json", "buckets.json", "padded2.json")
    _, (one,) = elsewhere(tmp_path)
    assert one.recorded and one.buckets and one.padded == ()


def test_a_process_that_was_not_brought_is_said(tmp_path):
    brought(tmp_path, "run1.json")
    _, (one,) = elsewhere(tmp_path)
    assert not one.available and one.runs == ()
    assert one.available.reason == f"1 of the 2 processes that protocol asks for are recorded on {ELSEWHERE}"
    assert "processes: 1}" in one.available.remedy


def test_another_device_without_such_records_has_no_such_cell(tmp_path):
    brought(tmp_path)
    assert elsewhere(tmp_path)[1] == []


def test_settings_in_a_runtime_s_name_reach_its_runner_and_its_columns():
    name = "onnxruntime-cpu+arena=off+prepacking=off"

    def set_(config):
        config["sweeps"]["text"]["runtimes"].append(name)
        config["changing"]["cells"] = ["onnxruntime-cpu+*/text/fp32/mixed"]

    (cell,) = study(set_).changing
    assert cell.runs[0] == f"results/changing/cpu-test/{name}/text/fp32/mixed/run1.json"
    assert cell.to_json()["levers"] == ["arena off", "prepacking off"]
    given = json.loads(study(set_).slices.changing(name, "text", "fp32", "mixed", "cpu-test"))
    assert (given["runtime"], given["options"]) == (name, {"arena": "off", "prepacking": "off"})
    fixed = json.loads(study(set_).plan())["cells"]
    assert [one["levers"] for one in fixed if one["runtime"] == name] == [["arena off", "prepacking off"]]


def test_a_setting_that_a_runtime_does_not_have_is_refused_with_those_that_it_has():
    def set_(config):
        config["sweeps"]["text"]["runtimes"].append("onnxruntime-cpu+arena=of")

    with pytest.raises(UserError, match=r"sweeps\.text\.runtimes: 'onnxruntime-cpu\+arena=of' sets arena to of; write"):
        study(set_)
    with pytest.raises(UserError, match=r"'onnxruntime-cpu\+area=off' sets area, which onnxruntime-cpu does not have"):
        study().slices.runtime("onnxruntime-cpu+area=off")


def engines(config):
    config["sweeps"]["text"] |= {"runtimes": ["tensorrt-profile"], "precisions": ["fp16"]}
    config["changing"]["cells"] = []
    config["engines"] = {
        "profiles": {
            "short": [{"batch": [1, 1, 2], "sequence": [8, 16, 16]}],
            "wide": [{"batch": [1, 1, 2], "sequence": [8, 16, 32]}],
            "narrow": [{"batch": [1, 1, 1], "sequence": [8, 16, 32]}, {"batch": [2, 2, 2], "sequence": [8, 16, 32]}],
        }
    }


@pytest.mark.parametrize(
    ("runtime", "engine"),
    [
        ("tensorrt-profile", "wide"),
        ("tensorrt-profile+engine=narrow", "narrow"),
        ("tensorrt-profile+engine=short", "short"),
    ],
)
def test_an_engine_takes_every_shape_of_a_sequence_or_is_the_one_that_the_name_says(runtime, engine):
    (path, record) = study(engines).changing_artifact(runtime, "text", "fp16", "mixed", "nvidia-test")
    assert path == f"results/engines/nvidia-test/tensorrt11/text/fp16/{engine}.engine"
    assert record == path.replace(".engine", ".json")


def test_a_name_that_no_engine_of_the_study_has_is_refused():
    def misnamed(config):
        engines(config)
        config["sweeps"]["text"]["runtimes"] = ["tensorrt-profile+engine=narow"]

    with pytest.raises(UserError, match=r"the engine narow, and engines\.profiles has none of that name, did you mean"):
        study(misnamed)
