# SPDX-License-Identifier: Apache-2.0
"""The photograph, the chain's input, its result, and SciPy's, side by side."""

from __future__ import annotations

from PIL import Image

from backstride._command import panels
from backstride._command.panels import Panel, as_image
from backstride._demo.enlarge import Enlargement


def side_by_side(enlargement: Enlargement) -> Image.Image:
    """Original, input, result and SciPy's zoom in one row, each over a title and two lines of notes."""
    sizes = [_size(stage.input[1:3]) for stage in enlargement.stages]
    full = _size(enlargement.original.shape[:2])
    return panels.side_by_side(
        [
            Panel([as_image(enlargement.original)], "Original", (f"{full} pixels", "(height x width)")),
            Panel([as_image(enlargement.mosaic)], "Input", (f"{sizes[0]} pixels, the means of", "cells of 32x32")),
            Panel(
                [as_image(enlargement.result)],
                "backstride",
                (f"FCN-8s upsampling, {sizes[0]} to", f"{sizes[1]} to {sizes[2]} to {full}"),
            ),
            Panel(
                [as_image(enlargement.zoom)],
                "SciPy",
                ("the same three bilinear zooms,", _apart(enlargement.agreement.same_steps_max)),
            ),
        ]
    )


def _apart(difference: float | None) -> str:
    if difference is None:
        return "too small to compare inside"
    return f"inside at most {difference:.{2 if difference > 0.01 else 5}f} of 255 apart"


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
