# SPDX-License-Identifier: Apache-2.0
"""The pictures side by side, and writing them so that no reader ever finds half a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from backstride._demo.enlarge import Enlargement

PANEL = (336, 448)  # the box that one image is fitted into; four of them make a picture of 1400 pixels
MARGIN, GAP = 10, 12
TITLE, NOTE, LINE = 24, 18, 23
BACKGROUND, INK, FAINT = "#ffffff", "#1b1f24", "#59636e"


def side_by_side(enlargement: Enlargement) -> Image.Image:
    """Original, input, result and SciPy's zoom in one row, each over a title and two lines of notes."""
    images = (enlargement.original, enlargement.mosaic, enlargement.result, enlargement.zoom)
    panels = [_fitted(_to_image(image)) for image in images]
    height = max(panel.height for panel in panels)
    captions = MARGIN + height + GAP
    size = (2 * MARGIN + 4 * PANEL[0] + 3 * GAP, captions + TITLE + GAP + 2 * LINE + MARGIN)
    picture = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for n, (panel, lines) in enumerate(zip(panels, captions_of(enlargement), strict=True)):
        left = MARGIN + n * (PANEL[0] + GAP)
        picture.paste(panel, (left + (PANEL[0] - panel.width) // 2, MARGIN + (height - panel.height) // 2))
        _write(draw, left, captions, *lines)
    return picture


def captions_of(enlargement: Enlargement) -> list[tuple[str, str, str]]:
    """A title and two notes for each panel, in ASCII: Pillow's own font has few other signs."""
    sizes = [_size(stage.input[1:3]) for stage in enlargement.stages]
    full = _size(enlargement.original.shape[:2])
    return [
        ("Original", f"{full} pixels", "(height x width)"),
        ("Input", f"{sizes[0]} pixels, the means of", "cells of 32x32"),
        ("backstride", f"FCN-8s upsampling, {sizes[0]} to", f"{sizes[1]} to {sizes[2]} to {full}"),
        ("SciPy", "the same three bilinear zooms,", _apart(enlargement.agreement.same_steps_max)),
    ]


def _apart(difference: float | None) -> str:
    if difference is None:
        return "too small to compare inside"
    return f"inside at most {difference:.{2 if difference > 0.01 else 5}f} of 255 apart"


def write_png(picture: Image.Image, path: Path) -> None:
    """The picture under its name only when it is whole: written beside it first, then renamed."""
    draft = path.with_name(f".backstride-{os.getpid()}.png")
    try:
        with draft.open("wb") as file:
            picture.save(file, format="PNG", optimize=True)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _to_image(levels: NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def _fitted(image: Image.Image) -> Image.Image:
    """As large as the panel allows; what is smaller is enlarged in squares, which hide nothing."""
    scale = min(PANEL[0] / image.width, PANEL[1] / image.height)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _write(draw: ImageDraw.ImageDraw, left: int, top: int, title: str, *notes: str) -> None:
    draw.text((left, top), title, INK, ImageFont.load_default(TITLE))
    for n, note in enumerate(notes):
        draw.text((left, top + TITLE + GAP + n * LINE), note, FAINT, ImageFont.load_default(NOTE))


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
