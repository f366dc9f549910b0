"""Pretrained weights from the Hugging Face hub, or a quick answer that they cannot be had."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from pathlib import Path

from ceilings.models import checkpoint

ANSWER_SECONDS = 4.0
"""How long the hub may take to answer at all. A firewall that drops packets, or a resolver that hangs, must cost no
more than this: the HTTP client's own time-out covers neither name look-ups nor its retries."""

SMALL_FILES = (
    *("config.json", "open_clip_config.json", "preprocessor_config.json", "modules.json", "*_Pooling/config.json"),
    *checkpoint.TOKENIZER,
)
WEIGHTS = (*checkpoint.PLAIN, *checkpoint.OPEN_CLIP)
"""Files that hold weights, or name the parts that do; of two kinds for one implementation the first is taken."""


class Unavailable(Exception):
    """The repository cannot be had now. The message says why, as one clause."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A downloaded repository.

    Attributes:
        folder: Where its files lie.
        revision: The commit that the files belong to.
        origin: ``hub cache`` or ``hub``.
    """

    folder: Path
    revision: str
    origin: str


def fetch(repository: str) -> Snapshot:
    """The files of a repository: from the local cache if they are all there, else from the hub.

    Args:
        repository: ``owner/name``.

    Raises:
        Unavailable: Neither has them.
    """
    # The accelerated transfer protocol talks to further hosts, with minutes of retries where those are blocked.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import constants, snapshot_download

    cached = _cached(repository)
    if cached is not None:
        return cached
    if constants.is_offline_mode():
        raise Unavailable(f"{repository} is not in the hub cache and HF_HUB_OFFLINE is set")
    revision, files = _ask(repository)
    weights = _weights(files)
    if not weights or not files & {"config.json", "open_clip_config.json"}:
        raise Unavailable(f"{repository} has no config.json with weights beside it ({', '.join(WEIGHTS)})")
    try:
        folder = snapshot_download(repository, revision=revision, allow_patterns=[*weights, *SMALL_FILES])
    except Exception as error:  # the client's error types differ between its releases
        raise Unavailable(f"downloading {repository} failed: {_first_line(error)}") from None
    return Snapshot(Path(folder), revision, "hub")


def _cached(repository: str) -> Snapshot | None:
    """The cached snapshot, if config and weights are in it."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except Exception:  # not cached, or a name that is no repository: the hub's answer will say which
        return None
    files = {path.name for path in folder.iterdir()}
    weights = _weights(files)
    if not weights or not files & {"config.json", "open_clip_config.json"} or not _whole(folder, weights):
        return None
    return Snapshot(folder, folder.name, "hub cache")


def _weights(files: set[str]) -> list[str]:
    """Patterns of the files of weights to take: one form of Transformers', one of open_clip's."""
    plain = [name for name in WEIGHTS[:4] if name in files][:1]
    patterns = [*plain, *[name for name in WEIGHTS[4:] if name in files][:1]]
    if plain and plain[0].endswith(".index.json"):
        patterns.append(
            plain[0].replace(".safetensors.index.json", "-*.safetensors").replace(".bin.index.json", "-*.bin")
        )
    return patterns


def _whole(folder: Path, weights: list[str]) -> bool:
    """Whether every part that an index names is there."""
    index = next((folder / name for name in weights if name.endswith(".index.json")), None)
    parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index else set()
    return all((folder / part).exists() for part in parts)


def _ask(repository: str) -> tuple[str, set[str]]:
    """Revision and file names of a repository, within ``ANSWER_SECONDS``."""
    from huggingface_hub import HfApi

    answer: list[tuple[str, set[str]]] = []
    trouble: list[str] = []

    def ask() -> None:
        try:
            info = HfApi().model_info(repository, timeout=ANSWER_SECONDS)
            answer.append((str(info.sha), {file.rfilename for file in info.siblings or []}))
        except Exception as error:
            trouble.append(_first_line(error))

    # A daemon thread, since a hanging name look-up cannot be cancelled and must not hold the program at its end.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if answer:
        return answer[0]
    why = trouble[0] if trouble else f"no answer within {ANSWER_SECONDS:g} s"
    raise Unavailable(f"{repository} is not in the hub cache and the hub cannot be reached ({why})")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
