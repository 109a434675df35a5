# SPDX-License-Identifier: Apache-2.0
"""The reduction, its enlargements, and the truth, in whole and where bicubic enlargement misses most."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from backstride._command import panels
from backstride._command.panels import Panel, as_image
from backstride._command.photo import Photo
from backstride._upscale import cubic
from backstride._upscale.quality import Quality

CROP = (80, 112)  # height and width, shown three times as large
FRAME = "#ffd33d"


def side_by_side(truth: Photo, small: Photo, ours: NDArray[Any], scores: tuple[Quality, Quality]) -> Image.Image:
    """Low resolution, bicubic, the network's and the truth, with the scores of the two in the middle."""
    scale = len(truth) // len(small)
    bicubic = cubic.enlarged(small[None].astype(np.float32), scale)[0]
    box = _busiest(np.abs(truth - bicubic).sum(axis=2))
    columns = [
        (_squares(small, scale), "Low resolution", (f"{_size(small)} pixels, reduced", "by Pillow, antialiased")),
        (bicubic, "Bicubic", _score(scores[0])),
        (ours, "backstride", _score(scores[1])),
        (truth, "Truth", (f"{_size(truth)} pixels", "(height x width)")),
    ]
    return panels.side_by_side([Panel(_views(image, box), title, notes) for image, title, notes in columns])


def _busiest(missing: NDArray[Any]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the crop in which most is missing."""
    height, width = (min(crop, length) for crop, length in zip(CROP, missing.shape, strict=True))
    sums = np.pad(missing, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = (int(n) for n in np.unravel_index(np.argmax(inside), inside.shape))
    return left, top, left + width, top + height


def _views(levels: NDArray[Any], box: tuple[int, int, int, int]) -> list[Image.Image]:
    whole = as_image(levels)
    crop = whole.crop(box)
    ImageDraw.Draw(whole).rectangle(box, outline=FRAME, width=max(whole.width // 150, 1))
    return [whole, crop]


def _squares(image: Photo, scale: int) -> Photo:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def _score(score: Quality) -> tuple[str, str]:
    return f"PSNR {score.psnr:.2f} dB,", f"SSIM {score.ssim:.4f} (luma)"


def _size(image: Photo) -> str:
    return "x".join(map(str, image.shape[:2]))
