# SPDX-License-Identifier: Apache-2.0
"""Drawings as images, by Pillow, twice as large as their numbers say."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw, ImageFont

from backstride._explain.scene import PAPER, Lines, Rectangle, Scene

SCALE, FINER = 2, 2  # pixels for a number, and how much finer it is drawn before it is made smooth
ANCHORS: dict[str, Any] = {"start": "ls", "middle": "ms", "end": "rs"}


def image(scene: Scene) -> Image.Image:
    """The drawing."""
    times = SCALE * FINER
    picture = Image.new("RGB", (round(scene.width * times), round(scene.height * times)), PAPER)
    draw = ImageDraw.Draw(picture)
    for item in scene.items:
        if isinstance(item, Rectangle):
            half = item.thickness / 2 if item.stroke else 0
            box = (item.x - half, item.y - half, item.x + item.width + half, item.y + item.height + half)
            left, top, right, bottom = (round(value * times) for value in box)
            corners = (left, top, max(right - 1, left), max(bottom - 1, top))
            draw.rectangle(corners, item.fill, item.stroke, round(item.thickness * times) if item.stroke else 0)
        elif isinstance(item, Lines):
            for segment in item.segments:
                draw.line([value * times for value in segment], item.stroke, round(item.thickness * times))
        else:
            font = ImageFont.load_default(item.size * times)
            place = (item.x * times, item.y * times)
            stroke = times // 4 if item.bold else 0
            draw.text(place, item.text, item.colour, font, ANCHORS[item.anchor], stroke_width=stroke)
    return picture.reduce(FINER)
