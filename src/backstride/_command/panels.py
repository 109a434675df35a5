# SPDX-License-Identifier: Apache-2.0
"""Images side by side, each over a title and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 336, 448  # the box that one image is fitted into; four of them make a picture of 1400 pixels
MARGIN, GAP = 10, 12
TITLE, NOTE, LINE = 24, 18, 23
BACKGROUND, INK, FAINT = "#ffffff", "#1b1f24", "#59636e"


@dataclass(frozen=True)
class Panel:
    """A column of the picture: images one over the other, a title, two lines of notes.

    The words are in ASCII: Pillow's own font has few other signs.
    """

    images: Sequence[Image.Image]
    title: str
    notes: tuple[str, str]


def side_by_side(panels: Sequence[Panel]) -> Image.Image:
    """The panels, which have as many images each, as one picture."""
    columns = [[_fitted(image) for image in panel.images] for panel in panels]
    heights = [max(image.height for image in row) for row in zip(*columns, strict=True)]
    tops = list(accumulate((height + GAP for height in heights), initial=MARGIN))
    size = (
        2 * MARGIN + len(panels) * (WIDTH + GAP) - GAP,
        tops[-1] + TITLE + GAP + 2 * LINE + MARGIN,
    )
    picture = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for n, (panel, images) in enumerate(zip(panels, columns, strict=True)):
        left = MARGIN + n * (WIDTH + GAP)
        for image, top, height in zip(images, tops, heights, strict=False):
            picture.paste(image, (left + (WIDTH - image.width) // 2, top + (height - image.height) // 2))
        _write(draw, left, tops[-1], panel)
    return picture


def as_image(levels: NDArray[np.generic]) -> Image.Image:
    """Grey levels of 0..255, `[height, width, 3]`, rounded."""
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def _fitted(image: Image.Image) -> Image.Image:
    """As large as the box allows; what is smaller is enlarged in squares, which hide nothing."""
    scale = min(WIDTH / image.width, HEIGHT / image.height)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _write(draw: ImageDraw.ImageDraw, left: int, top: int, panel: Panel) -> None:
    draw.text((left, top), panel.title, INK, ImageFont.load_default(TITLE))
    for n, note in enumerate(panel.notes):
        draw.text((left, top + TITLE + GAP + n * LINE), note, FAINT, ImageFont.load_default(NOTE))
