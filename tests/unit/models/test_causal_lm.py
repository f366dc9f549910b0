"""Models that generate: planned, made, given prompts, and answering as a loop without a cache does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generating_models import GPT2, LLAMA, SIZES, generating
from tiny_models import Checkpoint, of_path

from ceilings.errors import CellFailure, UserError
from ceilings.models import outline, pool, reference, tokens, weights, weights_folder
from ceilings.models.inputs import Wanted, make_inputs, sample
from ceilings.models.load import load_module
from ceilings.workload.generation import PROBES, Decoder
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

SHAPE = Shape.parse("b3-p12-g9")
DECODERS = {"gpt2": Decoder(2, 4, 4, 16, 300, 128), "llama": Decoder(2, 4, 2, 16, 300, 128)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights of each architecture."""
    base = tmp_path_factory.mktemp("generating")
    for architecture in SIZES:
        weights.fetch(generating(architecture), base / architecture)
    return {architecture: base / architecture for architecture in SIZES}


@pytest.mark.parametrize("architecture", SIZES)
def test_it_is_planned_as_it_is_made(architecture: str, folders: dict[str, Path]) -> None:
    planned = outline.outline(generating(architecture))
    made = Workload.read(folders[architecture])
    assert (planned.task, planned.family, planned.axes) == ("text-generation", "causal_lm", made.axes)
    assert made.axes == ("batch", "prompt", "generated")
    assert made.decoder == DECODERS[architecture]
    assert planned.positions == made.decoder.positions
    assert [(tensor.name, tensor.sizes(SHAPE)) for tensor in made.outputs] == [("tokens", (3, 9)), ("logits", (3, 300))]


def greedy(folder: Path, ids: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (rows, count) and logits (rows, count, vocabulary) of a whole forward pass for each token."""
    import torch

    model: Any = load_module(folder, attention="eager").model
    rows, logits = torch.from_numpy(ids), []
    with torch.inference_mode():
        for _ in range(count):
            logits.append(model(input_ids=rows, use_cache=False).logits[:, -1])
            rows = torch.cat([rows, logits[-1].argmax(-1, keepdim=True)], 1)
    return rows[:, ids.shape[1] :].numpy(), torch.stack(logits, 1).numpy()


@pytest.mark.parametrize("architecture", SIZES)
@pytest.mark.parametrize("memory", [1 << 29, 70_000, 20_000])  # all rows at once, a few, and one by one
def test_the_reference_is_what_a_loop_without_a_cache_gives(
    architecture: str, memory: int, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ceilings.models import token_reference

    monkeypatch.setattr(token_reference, "MEMORY", memory)
    # A prompt in three pieces where every row has its turn, else two prompts at once.
    monkeypatch.setattr(token_reference, "PIECE", 5 if memory == 20_000 else 30)
    folder = folders[architecture]
    make_inputs(folder, SHAPE, Wanted(3, 0), tmp_path / "in.npz")
    shapes = reference.compute(folder, tmp_path / "in.npz", 1, tmp_path / "r.npz", shape=SHAPE)
    assert shapes == {
        "tokens": (2, 3, 9),
        "logits": (2, 3, 4, 300),
        "probes": (2, 3),
        "rounding": (2,),
    }
    arrays = pool.load_pool(tmp_path / "in.npz")
    given = pool.load_outputs(tmp_path / "r.npz", pool.digest(arrays))
    assert {name: array.dtype.name for name, array in given.items()} == {
        "tokens": "int64",
        "logits": "float32",
        "probes": "float32",
        "rounding": "float32",
    }
    for element in range(2):
        expected, logits = greedy(folder, arrays["input_ids"][element], 9)
        assert np.array_equal(given["tokens"][element], expected)
        assert np.abs(given["logits"][element] - logits[:, :4]).max() < 1e-5
    # It reads other texts as that loop would, in one piece or in several, one together or many.
    texts = np.random.default_rng(0).integers(0, 300, (5, 9))
    rows = arrays["input_ids"].reshape(-1, 12)[:5]
    gaps = token_reference.gaps(folder, rows, texts, 1)
    assert gaps.shape == (5, 9) and gaps.dtype == np.float32
    for place in range(9):
        _, logits = greedy(folder, np.concatenate([rows, texts[:, :place]], 1), 1)
        behind = logits[:, 0].max(-1) - np.take_along_axis(logits[:, 0], texts[:, place : place + 1], -1)[:, 0]
        assert np.abs(gaps[:, place] - behind).max() < 1e-5
    own = token_reference.gaps(folder, arrays["input_ids"][1], given["tokens"][1], 1)
    assert own.max() < 1e-5


@pytest.mark.parametrize("architecture", SIZES)
def test_rounding_is_that_of_the_model_in_half_precision(architecture: str, folders: dict[str, Path]) -> None:
    """In FP32 on any CPU: PyTorch in FP16 takes minutes on some."""
    import torch

    from ceilings.models import token_reference
    from ceilings.models.rounding import TYPES, rounded

    model: Any = load_module(folders[architecture], attention="eager").model
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 300, (16, 48)))
    before = [parameter.clone() for parameter in model.parameters()]
    with torch.inference_mode():
        right = model(input_ids=ids).logits[:, -1]
        for precision, dtype in TYPES.items():
            half: Any = load_module(folders[architecture], "eager", str(dtype).removeprefix("torch.")).model
            real = token_reference._moved(right, half(input_ids=ids).logits[:, -1].float())
            with rounded(model, precision):
                made = token_reference._moved(right, model(input_ids=ids).logits[:, -1])
            assert 0.6 < made / real < 1.6, (precision, made, real)
        assert torch.equal(model(input_ids=ids).logits[:, -1], right)
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


def test_random_weights_do_not_repeat_one_token(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        ids = sample(folder, Shape.parse("b4-p16-g1"), 1, 0).arrays["input_ids"][0]
        rows = greedy(folder, ids, 48)[0]
        assert np.mean([len(set(row)) for row in rows.tolist()]) > 6
        changed = ids.copy()
        changed[:, 2] = (changed[:, 2] + 1) % 300  # an early token of the prompt is not forgotten
        assert (greedy(folder, changed, 48)[0] != rows).any(1).all()


@pytest.mark.parametrize("spoken_by", ["random", "corpus"])
def test_no_two_prompts_begin_alike(spoken_by: str, folders: dict[str, Path], spoken: Path, tmp_path: Path) -> None:
    folder = folders["gpt2"]
    if spoken_by == "corpus":
        weights.fetch(generating(config={**GPT2, "vocab_size": 500}), tmp_path / "w")
        (tmp_path / "w" / weights_folder.TOKENIZER).write_bytes((spoken / weights_folder.TOKENIZER).read_bytes())
        folder = tmp_path / "w"
    made = sample(folder, Shape.parse("b64-p32-g1"), 8, 0)
    rows = made.arrays["input_ids"].reshape(-1, 32)
    assert made.source == spoken_by and made.real_share == 1
    assert len({row[: tokens.PREFIX].tobytes() for row in rows}) == len(rows) == 512
    again, other = sample(folder, Shape.parse("b64-p32-g1"), 8, 0), sample(folder, Shape.parse("b64-p32-g1"), 8, 1)
    assert np.array_equal(again.arrays["input_ids"], made.arrays["input_ids"])
    assert not np.array_equal(other.arrays["input_ids"], made.arrays["input_ids"])


def test_prompts_that_must_begin_alike_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(CellFailure, match=r"cannot make 512 prompts of 1 tokens"):
        sample(folders["gpt2"], Shape.parse("b64-p1-g1"), 8, 0)


def test_a_context_beyond_the_positions_is_refused(folders: dict[str, Path]) -> None:
    weights_folder.refuse_impossible(folders["gpt2"], Shape.parse("b1-p96-g32"))
    with pytest.raises(UserError, match=r"context of 129 tokens .*longer than the 128 positions .*n_positions"):
        weights_folder.refuse_impossible(folders["gpt2"], Shape.parse("b1-p97-g32"))


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_is_loaded_strictly(tied: bool, checkpoint: Checkpoint, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder, model = checkpoint("AutoModelForCausalLM", "gpt2", {**GPT2, "tie_word_embeddings": tied})
    weights.fetch(of_path(folder), tmp_path / "w")
    assert Workload.read(tmp_path / "w").task.name == "text-generation"
    state = load_file(folder / "model.safetensors")
    assert ("lm_head.weight" in state) is not tied
    ids = torch.arange(12).reshape(2, 6)
    with torch.inference_mode():
        expected = model(input_ids=ids).logits[:, -1]
        assert torch.allclose(load_module(tmp_path / "w")(ids)[0], expected, atol=1e-5)
    del state["transformer.h.1.mlp.c_fc.weight" if tied else "lm_head.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 tensors are missing"):
        weights.fetch(of_path(folder), tmp_path / "v")


@pytest.mark.parametrize(
    ("architecture", "config", "why"),
    [
        ("mistral", {"sliding_window": 32}, "forgets what is 32 tokens ago"),
        ("mamba", {}, "LinearAttentionLayer"),
        ("bert", {}, "its logits with a cache are not|no past_key_values|a forward pass with one fails|keeps"),
    ],
)
def test_another_cache_than_a_plain_one_is_refused(
    architecture: str, config: dict[str, Any], why: str, tmp_path: Path
) -> None:
    sizes = {key: LLAMA[key] for key in ("hidden_size", "num_hidden_layers", "vocab_size")}
    if architecture != "mamba":
        sizes |= {"num_attention_heads": 4, "intermediate_size": 64}
    model = generating(architecture, config={**sizes, **config}, task="text-generation")
    with pytest.raises(CellFailure, match=why) as failure:
        weights.fetch(model, tmp_path / "w")
    assert failure.value.kind == "unsupported"


def test_a_window_that_is_longer_than_the_context_is_none(tmp_path: Path) -> None:
    model = generating("mistral", config={**LLAMA, "sliding_window": 128})
    weights.fetch(model, tmp_path / "w")
    assert Workload.read(tmp_path / "w").decoder == DECODERS["llama"]


@pytest.mark.parametrize("architecture", SIZES)
def test_the_reference_says_how_far_a_fault_of_the_cache_moves_its_logits(
    architecture: str, folders: dict[str, Path]
) -> None:
    """An empty slot, which no loop without a cache has, moves them; without decode steps there is no cache to fault."""
    from ceilings.models import token_reference

    ids = np.random.default_rng(0).integers(0, 300, (2, 3, 12))
    elements = [{"input_ids": each} for each in ids]
    made = token_reference.generate(folders[architecture], elements, SHAPE, 1)
    assert made["probes"].shape == (2, len(PROBES)) and made["probes"].dtype == np.float32
    assert (made["probes"] > 1e-4).all() and (made["probes"] < 2).all()
    again = token_reference.generate(folders[architecture], elements[:1], SHAPE, 1)
    np.testing.assert_allclose(again["probes"], made["probes"][:1], rtol=1e-3)
    prefill = token_reference.generate(folders[architecture], elements, Shape.parse("b3-p12-g1"), 1)
    assert prefill["probes"].size == 0
    one_token = [{"input_ids": each[:, :1]} for each in ids]  # its only slot is empty
    assert token_reference.generate(folders[architecture], one_token, Shape.parse("b3-p1-g3"), 1)["probes"].size
