"""Tiny models and checkpoints, made once, in folders as users have them."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny_models import Checkpoint, tiny

from ceilings.models import tokens, weights, weights_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a DistilBERT that classifies."""
    path = tmp_path_factory.mktemp("weights")
    weights.fetch(tiny(), path)
    return path


@pytest.fixture(scope="session")
def spoken(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a tokenizer that knows 500 tokens of the corpus."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    path = tmp_path_factory.mktemp("spoken") / "weights"
    shutil.copytree(folder, path)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.train([str(Path(tokens.__file__).with_name("corpus.txt"))], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(path / weights_folder.TOKENIZER))
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """Saves a model of a Transformers class with an architecture's tiny sizes, and returns its folder and itself."""

    def save(kind: str, architecture: str, sizes: dict[str, Any], **options: Any) -> tuple[Path, Any]:
        import torch
        import transformers

        from ceilings.models import pretrained

        pretrained.quiet()
        torch.manual_seed(1)
        config = transformers.AutoConfig.for_model(architecture, **sizes)
        automatic = getattr(transformers, kind)
        model = automatic.from_config(config) if kind.startswith("Auto") else automatic(config)
        path = tmp_path / f"{architecture}-checkpoint"
        model.save_pretrained(path, **options)
        return path, model.eval()

    return save


@pytest.fixture(scope="session")
def open_clip() -> ModuleType:
    """The package of that name; a torchvision without its C++ operators serves, since no tower uses one."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for _ in range(5):
        try:
            return importlib.import_module("open_clip")
        except ModuleNotFoundError as error:
            pytest.skip(f"{error.name} is not installed: pip install open_clip_torch torchvision")
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            library.define(f"{missing[1]}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    pytest.fail("torchvision cannot be imported")
