# SPDX-License-Identifier: Apache-2.0
"""The photographs of scikit-image: those to train on, those held out, and patches of the former."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backstride._command.photo import read_photo, scikit_image
from backstride._upscale import cubic
from backstride._upscale.cubic import Floats

HELD_OUT = ("chelsea.png", "coffee.png")
TRAINING = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
SIZES = (1.0, 0.7, 0.5)  # to train at

BATCH = 16  # patches
PATCH = 24  # pixels of the small image, each way


@dataclass(frozen=True)
class Pair:
    """The luma of a photograph, `[height, width]` of 0..1, and of its reduction, `scale` times smaller."""

    truth: Floats
    small: Floats


def read_luma(path: Path) -> Floats:
    """The luma `[height, width]` of 0..1."""
    return cubic.luma(read_photo(path).astype(np.float32) / np.float32(255))[..., 0]


def pair(luma: Floats, scale: int) -> Pair:
    """The photograph, cut to a multiple of `scale`, and what would be its 8-bit file in the smaller size."""
    height, width = (length - length % scale for length in luma.shape)
    truth = luma[:height, :width]
    small = resized(truth, (height // scale, width // scale))
    return Pair(truth, np.rint(np.clip(small, 0, 1) * 255) / np.float32(255))


def resized(image: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """To height and width by Pillow's bicubic, which is antialiased when it reduces: luma, or 8-bit RGB."""
    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Batch:
    """Small patches, and what bicubic enlargement misses of each: `[batch, height, width, 1]` both."""

    small: Floats
    missing: Floats


class Patches:
    """Random patches of the photographs to train on, more of them from where bicubic enlargement misses more."""

    def __init__(self, scale: int) -> None:
        lumas = map(read_luma, scikit_image(*TRAINING))
        self._scale = scale
        self._images = [_example(luma, size, scale) for luma in lumas for size in SIZES]
        missing = np.array([np.abs(missing).sum(dtype=np.float64) for _, missing in self._images])
        self._shares = missing / missing.sum()

    def batches(self, seed: int) -> Iterator[Batch]:
        """Batches without end, which follow from the seed."""
        random = np.random.default_rng(seed)
        while True:
            small, missing = zip(*(self._patch(random) for _ in range(BATCH)), strict=True)
            yield Batch(np.stack(small)[..., None], np.stack(missing)[..., None])

    def _patch(self, random: np.random.Generator) -> tuple[Floats, Floats]:
        small, missing = self._images[random.choice(len(self._images), p=self._shares)]
        top, left = (int(random.integers(length - PATCH + 1)) for length in small.shape)
        turns, mirror = int(random.integers(4)), int(random.choice((-1, 1)))
        return (
            np.rot90(_square(small, top, left, 1), turns)[:, ::mirror],
            np.rot90(_square(missing, top, left, self._scale), turns)[:, ::mirror],
        )


def _example(luma: Floats, size: float, scale: int) -> tuple[Floats, Floats]:
    height, width = (round(length * size) for length in luma.shape)
    example = pair(resized(luma, (height, width)), scale)
    return example.small, example.truth - cubic.enlarged(example.small[None, ..., None], scale)[0, ..., 0]


def _square(image: NDArray[np.float32], top: int, left: int, scale: int) -> Floats:
    return image[top * scale : (top + PATCH) * scale, left * scale : (left + PATCH) * scale]
