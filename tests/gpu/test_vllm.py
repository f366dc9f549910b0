"""vLLM on a GPU: requests of the runner in each mode, in the environment of requirements/vllm.txt."""

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

from ceilings.runtimes import vllm_engine
from ceilings.workload import generation
from ceilings.workload.generation import Decoder
from ceilings.workload.shape import Shape

REQUESTS = Path(__file__).parents[1] / "unit/runtimes/vllm_requests.py"
SCRIPTS = Path(vllm_engine.__file__).parents[2]
SHAPE = Shape.parse("b3-p17-g8")
LAYERS, WIDTH, HEADS, VOCABULARY, POSITIONS = 2, 256, 4, 300, 128

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The folder of a tiny GPT-2 whose logits lie far apart."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=LAYERS, n_embd=WIDTH, n_head=HEADS, n_positions=POSITIONS, vocab_size=VOCABULARY, bos_token_id=0,
        eos_token_id=0, initializer_range=0.4,
    )  # fmt: skip
    GPT2LMHeadModel(config).eval().save_pretrained(folder)
    decoder = Decoder(LAYERS, HEADS, HEADS, WIDTH // HEADS, VOCABULARY, POSITIONS)
    (folder / "decoder.json").write_text(json.dumps(decoder.to_json()))
    return folder


@pytest.mark.parametrize(("mode", "captured"), [*((mode, None) for mode in vllm_engine.MODES), ("default", "1-4")])
def test_a_mode_generates_and_is_what_it_says(weights, tmp_path, mode, captured):
    options = {"mode": mode, **({"captured": captured} if captured else {})}
    out = tmp_path / "out.json"
    command = [sys.executable, str(REQUESTS), str(weights), json.dumps(options), str(SHAPE), "fp16", str(out)]
    compiled = tmp_path / "compiled"
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), "CEILINGS_COMPILE_CACHE": str(compiled)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert any(compiled.rglob("*.cubin")) and not list((compiled / "flashinfer").rglob("*.so"))  # nothing by nvcc
    given = json.loads(out.read_text())
    tokens = [np.array(answer["tokens"]) for answer in given["answers"]]
    for whole, expected in zip(given["whole"], tokens, strict=False):
        np.testing.assert_array_equal(np.array(whole).T, expected)
    items = np.array(given["items"]).reshape(3, generation.steps(SHAPE), SHAPE.batch)
    for item, expected in zip(items, tokens, strict=True):
        np.testing.assert_array_equal(item.T, expected[:, 1:])
    compare_with_fp32(weights, given["answers"])
    about = given["about"]
    assert about["async_scheduling"] and about["batches_under_way"] == 2
    assert (about["cudagraph_mode"] == "NONE") == (mode != "default")
    assert bool(about["cudagraph_sizes"]) == (mode == "default")
    assert not captured or about["cudagraph_sizes"] == [1, 4]
    assert about["graph_replayed"] == (mode == "default")
    assert (about["compilation"] == "NONE") == (mode == "eager")
    assert ("capture" in given["cold_start_ns"]) == (mode == "default")
    assert ("compile" in given["cold_start_ns"]) == (mode != "eager")


def compare_with_fp32(weights: Path, answers: list[dict]) -> None:
    """The first token's logits are those of FP32 on the CPU, up to FP16's rounding."""
    from transformers import AutoModelForCausalLM

    draw = np.random.default_rng(7)
    network = AutoModelForCausalLM.from_pretrained(weights).eval()
    for answer in answers:
        ids = draw.integers(0, VOCABULARY, (SHAPE.batch, SHAPE["prompt"]))
        with torch.inference_mode():
            logits = network(torch.from_numpy(ids)).logits[:, -1].numpy()
        chosen, values = np.array(answer["ids"])[:, 0], np.array(answer["logits"])[:, 0]
        np.testing.assert_allclose(values, np.take_along_axis(logits, chosen, 1), atol=0.02 * np.abs(logits).max())
