"""Images: seeded noise with the spectrum of photographs, normalised as the checkpoint's processor does. No torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ceilings import files
from ceilings.models.weights_folder import PROCESSOR, REMEDY

GREY, CONTRAST = 0.5, 0.2
"""Mean and standard deviation of the images before normalisation, of 0 to 1."""


def sample(weights_dir: Path | str, sizes: tuple[int, ...], seed: int) -> np.ndarray:
    """Distinct normalised images.

    Args:
        weights_dir: A weights folder; its processor says mean and standard deviation, else 0.5 and 0.5.
        sizes: (..., channels, height, width).
        seed: Same seed, same images.

    Returns:
        float32 of ``sizes``.
    """
    rng = np.random.default_rng(seed)
    *leading, channels, height, width = sizes
    processor = Path(weights_dir, PROCESSOR)
    config = files.read_json(processor, REMEDY) if processor.exists() else {}
    mean, deviation = (
        np.resize(np.asarray(config.get(key, 0.5), np.float32), channels)[:, None, None]
        for key in ("image_mean", "image_std")
    )
    images = np.empty((int(np.prod(leading)), channels, height, width), np.float32)
    for image in images:
        # Eight bits a channel, as files of images have.
        image[:] = (np.round(_natural(rng, channels, height, width) * 255) / 255 - mean) / deviation
    return images.reshape(sizes)


def _natural(rng: np.random.Generator, channels: int, height: int, width: int) -> np.ndarray:
    """One image of 0 to 1 whose amplitudes fall with frequency, its channels much alike."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    noise = rng.standard_normal((1, height, width)) + 0.3 * rng.standard_normal((channels, height, width))
    image = np.fft.irfft2(np.fft.rfft2(noise) / frequency, (height, width))
    deviation = image.std() or 1.0
    return np.clip(GREY + CONTRAST * image / deviation, 0, 1)
