"""Input pools, padding, images, and the reference that belongs to a pool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny
from unit import planted_records

from ceilings import options
from ceilings.errors import CellFailure, UserError
from ceilings.models import inputs, pool, reference, tokenizer, tokens, weights
from ceilings.models.inputs import Wanted, make_inputs, sample
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

PROGRAMS = Path(weights.__file__).parents[2]
TEXTS = (
    "A gorgeous film.",
    "It is hard to hate a movie that tries this hard, but it is easy to forget it.",
    "Two hours.",
)


def ids_of(made: inputs.Sample) -> np.ndarray:
    """Its token ids, one row after the other."""
    ids = made.arrays["input_ids"]
    return ids.reshape(-1, ids.shape[-1])


def test_inputs_are_distinct_whole_and_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        made = make_inputs(folder, Shape.parse("b2-s16"), Wanted(pool=6, seed=3), tmp_path / f"{name}.npz")
        assert (made.source, made.real_share) == ("random", 1.0)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    arrays = pool.load_pool(tmp_path / "a.npz")
    assert list(arrays) == ["input_ids", "attention_mask"]
    assert arrays["input_ids"].shape == (6, 2, 16)
    assert arrays["input_ids"].dtype == arrays["attention_mask"].dtype == np.int64
    assert arrays["input_ids"].min() >= 1 and arrays["input_ids"].max() < 500
    assert arrays["attention_mask"].all()
    assert len(np.unique(arrays["input_ids"].reshape(6, -1), axis=0)) == 6
    assert [element["input_ids"].shape for element in pool.elements(arrays)] == [(2, 16)] * 6


def test_pools_are_those_of_published_studies(folder: Path) -> None:
    arrays = sample(folder, Shape.parse("b2-s16"), 6, 3).arrays
    assert pool.digest(arrays) == "fee2c46fb34f7395b9f05e2b5114573216557fa7d9da7cc9a3f2ab3a4c820bab"


def test_inputs_of_a_tokenizer_are_sentences(spoken: Path) -> None:
    made = sample(spoken, Shape.parse("b4-s40"), 3, seed=0)
    rows = ids_of(made)
    assert made.source == "corpus"
    assert (rows[:, 0] == 2).all() and (rows[:, -1] == 3).all()
    assert not np.isin(rows[:, 1:-1], [0, 2, 3]).any(), "no padding and no special tokens inside"
    assert not np.isin(ids_of(sample(spoken, Shape.parse("b1-s1"), 2, seed=0)), [2, 3]).any()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("kind", ["folder", "spoken"])
def test_a_share_of_every_row_is_real(request: pytest.FixtureRequest, kind: str, share: float) -> None:
    made = sample(request.getfixturevalue(kind), Shape.parse("b2-s32"), 3, 0, {"share": share})
    real = round(share * 32)
    mask = made.arrays["attention_mask"].reshape(-1, 32)
    assert (mask.sum(1) == real).all() and (np.diff(mask, axis=1) <= 0).all(), "padding on the right"
    assert (ids_of(made)[:, real:] == 0).all() and (ids_of(made)[:, :real] != 0).all()
    assert made.real_share == pytest.approx(real / 32)
    if kind == "spoken":
        assert (ids_of(made)[:, real - 1] == 3).all(), "the token that closes a text counts"


def test_rows_follow_a_file_of_texts(spoken: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(TEXTS))
    made = sample(spoken, Shape.parse("b2-s12"), 3, 0, {"file": str(file)})
    tokenizer = Tokenizer.from_file(str(spoken / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(12)
    wanted = sorted(tokenizer.encode(text).ids for text in TEXTS)
    assert max(map(len, wanted)) == 12 > min(map(len, wanted))
    rows = [
        row[:real].tolist()
        for row, real in zip(ids_of(made), made.arrays["attention_mask"].sum(-1).ravel(), strict=True)
    ]
    assert sorted(rows) == sorted([*wanted, *wanted]), "each text once before any comes again"
    assert made.real_share == pytest.approx(sum(map(len, wanted)) / 36)
    assert made.source == "texts"


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"share": 0}, "lengths are {'share': 0}"),
        ({"share": 1.5}, "above 0, at most 1"),
        ({"half": 1}, "lengths are"),
        ({"file": "missing.txt"}, "missing.txt cannot be read"),
    ],
)
def test_impossible_lengths(spoken: Path, lengths: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sample(spoken, Shape.parse("b1-s8"), 1, 0, lengths)


def test_texts_need_a_tokenizer_and_enough_of_them(folder: Path, spoken: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("One text only")
    with pytest.raises(CellFailure, match=r"has no tokenizer\.json to read them with; use weights"):
        sample(folder, Shape.parse("b1-s8"), 1, 0, {"file": str(file)})
    with pytest.raises(CellFailure, match="cannot make 2 distinct inputs of b1-s8"):
        sample(spoken, Shape.parse("b1-s8"), 2, 0, {"file": str(file)})
    file.write_text("\n")
    with pytest.raises(UserError, match="holds no line of text"):
        sample(spoken, Shape.parse("b1-s8"), 1, 0, {"file": str(file)})


def test_impossible_inputs(folder: Path) -> None:
    with pytest.raises(UserError, match="longer than the 64 positions"):
        sample(folder, Shape.parse("b1-s65"), 1, 0)
    with pytest.raises(CellFailure, match="cannot make 600 distinct"):
        sample(folder, Shape.parse("b1-s1"), 600, 0)
    with pytest.raises(UserError, match="lacks the axis 'sequence'"):
        sample(folder, Shape.parse("b1-i8"), 1, 0)
    with pytest.raises(UserError, match="cannot make 0 inputs"):
        sample(folder, Shape.parse("b1-s8"), 0, 0)


def test_a_shape_and_its_lengths_go_together(folder: Path, tmp_path: Path) -> None:
    for shape, lengths in (("b1-s8.half", None), ("b1-s8", {"share": 0.5})):
        with pytest.raises(UserError, match="make them agree"):
            make_inputs(folder, Shape.parse(shape), Wanted(2, 0, lengths), tmp_path / "in.npz")
    make_inputs(folder, Shape.parse("b1-s8.half"), Wanted(2, 0, {"share": 0.5}), tmp_path / "in.npz")
    assert float(pool.load(tmp_path / "in.npz")["real_share"]) == 0.5


def test_special_tokens_stand_where_a_configuration_names_them(tmp_path: Path) -> None:
    weights.fetch(
        tiny(
            architecture="roberta",
            config={
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 64,
                "vocab_size": 30,
                "max_position_embeddings": 40,
            },
        ),
        tmp_path,
    )
    made = sample(tmp_path, Shape.parse("b8-s30"), 2, 0, {"share": 0.8})
    rows = ids_of(made)
    assert (rows[:, 0] == 0).all() and (rows[:, 23] == 2).all() and (rows[:, 24:] == 1).all()
    assert set(np.unique(rows[:, 1:23])) == set(range(3, 30))
    with pytest.raises(UserError, match="longer than the 38 positions"):
        sample(tmp_path, Shape.parse("b1-s39"), 1, 0)


def build(kind: str, after: list[str]) -> Any:
    """A tokenizer of a kind of vocabulary that puts ``after`` (of which $A is the text) around a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
    words = sorted({word for text in tokenizer.corpus() for word in re.findall("[a-z]+", text.lower())})
    entries = {"words": words, "letters": list("abcdefghijklmnopqrstuvwxyz"), "dna": list("acgt"), "none": []}[kind]
    model = models.WordLevel(special | {entry: 4 + i for i, entry in enumerate(entries)}, unk_token="[UNK]")
    made = Tokenizer(model)
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace() if kind == "words" else pre_tokenizers.Split("", "isolated")
    if after:
        made.post_processor = processors.TemplateProcessing(
            single=" ".join(after), special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return made


@pytest.mark.parametrize("kind", ["letters", "dna", "none"])
def test_a_vocabulary_without_english_words_gives_random_ids(folder: Path, tmp_path: Path, kind: str) -> None:
    shutil.copytree(folder, tmp_path / "w")
    build(kind, ["[CLS]", "$A", "[SEP]"]).save(str(tmp_path / "w" / "tokenizer.json"))
    made = sample(tmp_path / "w", Shape.parse("b2-s12"), 2, 0)
    assert made.source == "random" and len(np.unique(ids_of(made))) > 30


def test_a_tokenizer_that_knows_no_text_at_all_ends(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    shutil.copytree(folder, tmp_path / "w")
    Tokenizer(models.BPE({}, [])).save(str(tmp_path / "w" / "tokenizer.json"))
    assert sample(tmp_path / "w", Shape.parse("b2-s12"), 2, 0).source == "random"


def test_a_tokenizer_without_a_token_for_what_it_does_not_know(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    shutil.copytree(folder, tmp_path / "w")
    made = Tokenizer(models.WordLevel({"ACGT": 0, "TTTT": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "w" / "tokenizer.json"))
    shape = Shape.parse("b2-s12")
    assert sample(tmp_path / "w", shape, 2, 0).source == "random"
    texts = tmp_path / "texts.txt"
    texts.write_text("ACGT TTTT\na film\n", encoding="utf-8")
    with pytest.raises(CellFailure, match=r"tokenizer\.json cannot read the texts \(.*UNK"):
        tokens.sample(
            tmp_path / "w",
            TensorSpec("ids", "int64", ("batch", "sequence"), "tokens", 0, 499),
            (2, 12),
            seed=0,
            lengths={"file": texts},
        )


@pytest.mark.parametrize("after", [["[CLS]", "$A"], ["$A", "[SEP]"], ["[CLS]", "[SEP]", "$A", "[SEP]"], ["$A"]])
def test_special_tokens_stand_where_the_tokenizer_puts_them(after: list[str]) -> None:
    ids = {"[CLS]": 2, "[SEP]": 3}
    text = after.index("$A")
    made = build("words", after)
    assert tokenizer.around(made) == ([ids[name] for name in after[:text]], [ids[name] for name in after[text + 1 :]])
    rows = tokens._sentences(made, 3, 10, np.random.default_rng(0))
    assert (np.isin(rows, (2, 3)).sum(1) == len(after) - 1).all()


def test_a_tokenizer_of_another_model_is_refused(spoken: Path) -> None:
    small = TensorSpec("input_ids", "int64", ("batch", "sequence"), "tokens", 0, 20)
    with pytest.raises(CellFailure, match="but the model's largest is 20"):
        tokens.sample(spoken, small, (4, 16), seed=0, lengths=None)


def test_images_are_normalised_as_the_processor_says(tmp_path: Path) -> None:
    pixels = TensorSpec("pixel_values", "float32", ("batch", 3, "image", "image"), "pixels")
    Workload(TASKS["image-embedding"], (pixels,), (), "image_encoder", "vit").write(tmp_path)
    planted_records.weights(tmp_path, limits={"image": [48, 48]})
    shape = Shape.parse("b2-i48")
    plain = sample(tmp_path, shape, 3, 0)
    values = plain.arrays["pixel_values"] * 0.5 + 0.5
    assert values.shape == (3, 2, 3, 48, 48) and values.dtype == np.float32
    assert (plain.source, plain.real_share) == ("spectrum", 1.0)
    assert values.min() >= 0 and values.max() <= 1.0 and 0.4 < values.mean() < 0.6
    assert np.allclose(values * 255, np.round(values * 255), atol=1e-3), "eight bits a channel"
    spectrum = np.abs(np.fft.rfft2(values - values.mean((-2, -1), keepdims=True))).mean((0, 1, 2))
    assert spectrum[1:4, 1:4].mean() > 5 * spectrum[16:24, 16:24].mean(), "most of it in low frequencies"
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 2]}')
    normalised = sample(tmp_path, shape, 3, 0).arrays["pixel_values"]
    for channel, (mean, deviation) in enumerate(((0.1, 0.5), (0.2, 0.5), (0.3, 2))):
        assert np.allclose(normalised[:, :, channel] * deviation + mean, values[:, :, channel], atol=1e-6)
    with pytest.raises(UserError, match="image 32 is not the 48 that"):
        sample(tmp_path, Shape.parse("b2-i32"), 1, 0)
    with pytest.raises(CellFailure, match="reads no tokens, so that no lengths apply"):
        sample(tmp_path, shape, 1, 0, {"share": 0.5})


def test_every_content_is_made_as_declared(tmp_path: Path) -> None:
    dims = ("batch", "sequence")
    Workload(
        TASKS["tensors"],
        (
            TensorSpec("mask", "int32", dims, "mask"),
            TensorSpec("ids", "int32", dims, "tokens", 5, 9),
            TensorSpec("segments", "int64", dims, "zeros"),
            TensorSpec("ages", "float32", ("batch", 4), "integers", 18, 20),
            TensorSpec("noise", "float16", ("batch", "channels", 3), "reals"),
            TensorSpec("flags", "bool", ("batch",), "integers", 0, 1),
        ),
        (),
    ).write(tmp_path)
    planted_records.weights(tmp_path)
    made = sample(tmp_path, Shape.of({"batch": 8, "sequence": 6, "channels": 2}), 4, 0, {"share": 0.5}).arrays
    assert list(made) == ["mask", "ids", "segments", "ages", "noise", "flags"]
    assert [str(made[name].dtype) for name in made] == ["int32", "int32", "int64", "float32", "float16", "bool"]
    assert (made["mask"].sum(-1) == 3).all() and (made["ids"][..., 3:] == 5).all()
    assert set(np.unique(made["ids"][..., :3])) == {6, 7, 8, 9}
    assert not made["segments"].any() and set(np.unique(made["ages"])) == {18, 19, 20}
    assert made["noise"].shape == (4, 8, 2, 3) and abs(made["noise"].mean()) < 0.5 < made["noise"].std()
    assert made["flags"].any() and not made["flags"].all()


def test_changed_and_damaged_inputs(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    make_inputs(folder, Shape.parse("b1-s8"), Wanted(2, 0), path)
    content = pool.load(path)
    content["input/input_ids"][0, 0, 0] += 1
    pool.save(tmp_path / "changed.npz", **content)
    with pytest.raises(UserError, match="does not match its own sha256"):
        pool.load_pool(tmp_path / "changed.npz")
    for key, value in (("source", "corpus"), ("real_share", 0.5)):
        pool.save(tmp_path / "changed.npz", **(pool.load(path) | {key: np.array(value)}))
        with pytest.raises(UserError, match="does not match its own sha256"):
            pool.load_pool(tmp_path / "changed.npz")
    pool.save(tmp_path / "other.npz", logits=np.zeros(3))
    with pytest.raises(UserError, match=r"is no input pool \(it holds logits\)"):
        pool.load_pool(tmp_path / "other.npz")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match="is damaged"):
        pool.load_pool(path)
    with pytest.raises(UserError, match="does not exist"):
        pool.load_pool(tmp_path / "none.npz")


def test_the_reference_belongs_to_its_inputs(folder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_inputs(folder, Shape.parse("b2-s8"), Wanted(3, seed), tmp_path / f"{seed}.npz")
    assert reference.compute(folder, tmp_path / "0.npz", 1, tmp_path / "ref.npz") == {"logits": (2, 2, 2)}
    loaded, arrays = reference.load_for(tmp_path / "ref.npz", tmp_path / "0.npz")
    assert loaded["logits"].dtype == np.float32 and arrays["input_ids"].shape == (2, 2, 8)
    with pytest.raises(UserError, match="was made of the inputs"):
        reference.load_for(tmp_path / "ref.npz", tmp_path / "1.npz")
    with pytest.raises(UserError, match="holds no answers of a model"):
        reference.load_for(tmp_path / "0.npz", tmp_path / "1.npz")


def test_options_are_checked() -> None:
    assert options.read(Wanted, {"pool": 3, "seed": 4}, "--inputs").lengths is None
    for value, message in [
        ({"pool": 1}, "lacks the key 'seed'"),
        ({"pool": "1", "seed": 4}, "pool = '1'"),
        ({"pool": True, "seed": 4}, "pool = True"),
        ({"ring": 1}, "unknown key 'ring'"),
    ]:
        with pytest.raises(UserError, match=message):
            options.read(Wanted, value, "--inputs")


def test_make_inputs_by_hand(folder: Path, tmp_path: Path) -> None:
    def run(shape: str) -> subprocess.CompletedProcess[str]:
        wanted = json.dumps({"pool": 2, "seed": 0, "lengths": None})
        command = [sys.executable, PROGRAMS / "make_inputs.py", "--weights-dir", folder, "--shape", shape]
        return subprocess.run(
            [*command, "--inputs", wanted, "--output", tmp_path / "in.npz"], capture_output=True, text=True, check=False
        )

    assert run("b1-s16").returncode == 0
    refused = run("b1-s999")
    assert (
        refused.returncode == 1 and refused.stderr.startswith("error: sequence 999") and refused.stderr.count("\n") == 1
    )
