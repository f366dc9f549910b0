"""A tuner's process whose card is a double: what a tile takes is computed, and one tile faults or hangs.

``supervised`` of ``benchmarks/fused_tiles.py`` runs it as the real one: ``tuner.py FOLDER [--resumed] --seconds S``.
"""

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import torch

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "workflow_scripts"))


def module(name: str = "fused_tiles") -> ModuleType:
    """A program of ``benchmarks``, imported; those that it imports are before it."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


class Card:
    """A card whose launches cost 0.1 us a program, and whatever a test adds for a tile."""

    broken = False

    @staticmethod
    def timed(encoder):
        programs = sum(one.grid[0] * one.grid[1] * one.grid[2] for one in encoder.launches(*module().request(encoder)))
        return 0.1 * programs, torch.ones(1, encoder.sequence, 4)

    @staticmethod
    def compile_beside(encoders):
        pass

    @classmethod
    def usable(cls):
        return not cls.broken


class FaultyCard(Card):
    """Of attention's tiles one faults, after which nothing runs, and one never ends."""

    @classmethod
    def timed(cls, encoder):
        tile = encoder.tiles.attention
        if (tile.queries, tile.keys) == (32, 64):
            cls.broken = True
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if (tile.queries, tile.keys) == (64, 32):
            time.sleep(600)
        return super().timed(encoder)


def main(folder, seconds):
    """Tune attention alone."""
    tuner = module()
    tuner.STEPS = ("attention",)
    files, place = (folder / "account.json", folder / "tiles.json"), ("a-card", "a-size")
    cut = tuner.tiles.kept(*place, files[1]) or tuner.tiles.Tiles()
    encoder = tuner.Encoder(tuner.weights_of(1, "fp16", "cpu"), 1, 128, cut)
    account = tuner.Account(*files, *place)
    tuner.Tuning(encoder, account, time.monotonic() + seconds, FaultyCard).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[-1]))
