"""The module of a weights folder, ready to run."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ceilings.errors import UserError
from ceilings.models import weights_folder
from ceilings.workload.workload import Workload

if TYPE_CHECKING:
    import torch

UNUSED = ("sklearn", "scipy")
"""What Transformers imports with any model where it is installed: for assisted generation and for losses of detection.
No forward pass calls them, and they bring some 800 modules. It asks once whether they are there, at its import."""


@contextlib.contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Let imports find none of these packages, unless they are imported already; a library then does without.

    An import of a module that ``sys.modules`` has as None fails at once.
    """
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def load_module(
    weights_dir: Path | str, attention: str = "sdpa", dtype: str = "float32", device: str = "cpu"
) -> torch.nn.Module:
    """The module of a weights folder, in eval mode, without gradients.

    Args:
        weights_dir: A folder that ``fetch_weights.py`` filled.
        attention: ``sdpa`` or ``eager``. A model that has no ``sdpa`` gets ``eager``; the module's ``attention`` says
            which it is; empty where the family does not say.
        dtype: ``float32``, ``float16`` or ``bfloat16``. Pixels stay float32 and are cast inside.
        device: As torch names it.

    Returns:
        A module that takes the workload's inputs in their order and returns the tuple of its outputs in theirs.

    Raises:
        UserError: The folder is incomplete or damaged, or belongs to an ONNX file.
    """
    folder = Path(weights_dir)
    workload = Workload.read(folder)
    if not workload.family:
        raise UserError(f"{folder} belongs to an ONNX file, which has no module; use runtimes that take graphs")
    for name in (weights_folder.CONFIG, weights_folder.WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} does not exist; {weights_folder.REMEDY}")
    # By name, so that a family touches the results of its models only.
    family = importlib.import_module(f"ceilings.models.families.{workload.family}")
    # A Transformers that is there already believes in them, and cannot import a model that it does not find them for.
    with hidden(*(() if "transformers" in sys.modules else UNUSED)):
        model = family.load(folder, workload.task.name, attention, dtype)
    module: torch.nn.Module = family.wrap(model, workload.task.name)
    if not hasattr(module, "attention"):
        module.attention = ""  # type: ignore[assignment]
    return module.eval().requires_grad_(False).to(device)
