# SPDX-License-Identifier: Apache-2.0
"""Drawings as values: rectangles, lines and words on white, whatever file they become."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

INK, FAINT, GREY, PAPER = "#1b1f24", "#59636e", "#c8ced5", "#ffffff"
# Okabe and Ito's colours, which all kinds of eyes tell apart.
COLOURS = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
DARKEST = "#08306b"

Segment = tuple[float, float, float, float]


@dataclass(frozen=True)
class Rectangle:
    """A rectangle by its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    fill: str | None = None
    stroke: str | None = None
    thickness: float = 1


@dataclass(frozen=True)
class Lines:
    """Straight lines of one colour, each from (x, y) to another."""

    segments: tuple[Segment, ...]
    stroke: str
    thickness: float = 1


@dataclass(frozen=True)
class Words:
    """A line of text, on a baseline at y. In ASCII: Pillow's own font has few other signs."""

    x: float
    y: float
    text: str
    size: float = 13
    anchor: Literal["start", "middle", "end"] = "start"
    colour: str = INK
    bold: bool = False


@dataclass
class Scene:
    """What is drawn, from back to front, and what a screen reader says of it."""

    width: float
    title: str
    height: float = 0
    items: list[Rectangle | Lines | Words] = field(default_factory=list)

    def rectangle(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str | None = None,
        stroke: str | None = None,
        thickness: float = 1,
    ) -> None:
        """Adds one; nothing if it has no area."""
        if width > 0 and height > 0:
            self.items.append(Rectangle(x, y, width, height, fill, stroke, thickness))

    def lines(self, segments: Iterable[Segment], stroke: str, thickness: float = 1) -> None:
        """Adds some."""
        if segments := tuple(segments):
            self.items.append(Lines(segments, stroke, thickness))

    def words(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 13,
        anchor: Literal["start", "middle", "end"] = "start",
        colour: str = INK,
        bold: bool = False,
    ) -> None:
        """Adds a line of text."""
        self.items.append(Words(x, y, text, size, anchor, colour, bold))

    def paragraph(
        self, x: float, y: float, text: str, size: float = 13, colour: str = INK, bold: bool = False
    ) -> float:
        """Adds text in as many lines as it needs; returns where the next one would be."""
        signs = int((self.width - 2 * x) / (size * (0.56 if bold else 0.52)))
        for part in textwrap.wrap(text, signs):
            self.words(x, y, part, size, colour=colour, bold=bold)
            y += size + 6
        return y


def mixed(colour: str, share: float, other: str = PAPER) -> str:
    """So much of a colour, and the rest of another."""
    pairs = zip(_levels(colour), _levels(other), strict=True)
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in pairs)


def shade(count: int, most: int) -> str:
    """A blue for a number of taps; the differences between large numbers are the ones that matter."""
    return mixed(DARKEST, 0.9 * (count / most) ** 2 + 0.06) if count else PAPER


def on(colour: str) -> str:
    """What is legible on a colour."""
    red, green, blue = _levels(colour)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else PAPER


def _levels(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def svg(scene: Scene) -> str:
    """The drawing as a file that browsers show; the same one every time."""
    size = f"{_number(scene.width)} {_number(scene.height)}"
    width, height = size.split()
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{width}" height="{height}" '
            f'role="img" font-family="Helvetica, Arial, sans-serif">',
            f"<title>{escape(scene.title)}</title>",
            f'<rect width="{width}" height="{height}" rx="6" fill="{PAPER}"/>',
            *map(_element, scene.items),
            "</svg>\n",
        ]
    )


def _element(item: Rectangle | Lines | Words) -> str:
    if isinstance(item, Rectangle):
        return _tag(
            "rect",
            x=item.x,
            y=item.y,
            width=item.width,
            height=item.height,
            fill=item.fill or "none",
            stroke=item.stroke,
            stroke_width=item.thickness if item.stroke and item.thickness != 1 else None,
        )
    if isinstance(item, Lines):
        path = "".join(f"M{_number(a)} {_number(b)}L{_number(c)} {_number(d)}" for a, b, c, d in item.segments)
        return _tag("path", d=path, stroke=item.stroke, stroke_width=item.thickness if item.thickness != 1 else None)
    return _tag(
        "text",
        escape(item.text),
        x=item.x,
        y=item.y,
        font_size=item.size,
        text_anchor=item.anchor if item.anchor != "start" else None,
        font_weight="bold" if item.bold else None,
        fill=item.colour,
    )


def _tag(name: str, content: str | None = None, **attributes: float | str | None) -> str:
    said = "".join(
        f" {key.replace('_', '-')}={quoteattr(value if isinstance(value, str) else _number(value))}"
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{said}/>" if content is None else f"<{name}{said}>{content}</{name}>"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
