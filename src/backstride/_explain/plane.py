# SPDX-License-Identifier: Apache-2.0
"""The picture of two axes of a layer: the input's pixels, the stamps of some of them, how many taps meet where."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import product

from backstride._explain.arithmetic import Along
from backstride._explain.line import hatch, short, sums
from backstride._explain.ruler import GAP, Ruler, ruler
from backstride._explain.scene import COLOURS, FAINT, GREY, INK, Scene, mixed, on, shade

WIDTH, LEFT, ORIGIN, MARGIN = 800, 24, 232, 28
ROOM = WIDTH - ORIGIN - MARGIN  # for the full result
LARGEST, PIXEL, ENDS = 36, 26, 2
DIGIT, MOST = 8, 40  # the width of a digit, and how many cells along an axis are drawn one by one
SMALL = 12


def plane(axes: Sequence[Along], title: str, verdict: str, notes: Sequence[str] = ()) -> Scene:
    """The picture of two axes, rows and columns."""
    scene = Scene(WIDTH, title)
    top = scene.paragraph(LEFT, 34, title, 18, bold=True) - 2
    for axis in dict.fromkeys(axes):
        top = scene.paragraph(LEFT, top, sums(axis), colour=FAINT)
    top += 16
    rows, columns = _rulers(axes, top + 12)
    marked = _marked(rows, columns)
    _input(scene, rows, columns, marked, top)
    scene.words(ORIGIN, top, f"full result: {short(axes[0].full)}x{short(axes[1].full)}", bold=True)
    shown = _counts(scene, rows, columns)
    cut = _cut(scene, rows, columns)
    for n, (row, column) in enumerate(marked):
        _stamp(scene, rows, columns, row, column, n)
    _frame(scene, rows, columns)
    key = ["coloured frames: the stamps of the coloured pixels", "black frame: the result"]
    if any(each.kept.start < 0 or each.kept.stop > each.axis.full for each in (rows, columns)):
        key.append("in the frame beyond all stamps: zeros that are added")
    key += ["hatched: cut"] * cut + [f"{shown}: how many taps a pixel sums"] * bool(shown)
    bottom = max(rows.end, rows.origin + 186)
    for n in range(0, len(key), 2):
        scene.words(ORIGIN, bottom + 24 + 9 * n, ";  ".join(key[n : n + 2]), SMALL, colour=FAINT)
    bottom += 34 + 9 * len(key)
    bottom = scene.paragraph(LEFT, bottom + 16, verdict, bold=True)
    for note in notes:
        bottom = scene.paragraph(LEFT, bottom, note)
    scene.height = bottom
    return scene


def _rulers(axes: Sequence[Along], top: float) -> tuple[Ruler, Ruler]:
    """Those of the rows and the columns, of which all cells are squares."""
    fitted = [ruler(axis, 0, ROOM, LARGEST, ENDS) for axis in axes]
    cell = min(each.cell for each in fitted)
    rows, columns = (
        dataclasses.replace(each, origin=origin, cell=cell) for each, origin in zip(fitted, (top, ORIGIN), strict=True)
    )
    return rows, columns


def _fine(rows: Ruler, columns: Ruler) -> bool:
    return max(sum(map(len, each.segments)) for each in (rows, columns)) <= MOST


def _marked(rows: Ruler, columns: Ruler) -> list[tuple[int, int]]:
    """Input pixels whose stamps are shown: the first, its neighbour below to the right, the last."""
    first, last = (rows.inputs[0], columns.inputs[0]), (rows.inputs[-1], columns.inputs[-1])
    second = rows.inputs[min(1, len(rows.inputs) - 1)], columns.inputs[min(1, len(columns.inputs) - 1)]
    return list(dict.fromkeys([first, second, last]))


def _input(scene: Scene, rows: Ruler, columns: Ruler, marked: list[tuple[int, int]], top: float) -> None:
    """The input's pixels: all, or those of the corners."""
    scene.words(LEFT, top, f"input: {short(rows.axis.input)}x{short(columns.axis.input)}", bold=True)
    along = [_pixels(rows, rows.origin), _pixels(columns, LEFT)]
    for (row, y), (column, x) in product(*along):
        fill = COLOURS[marked.index((row, column))] if (row, column) in marked else mixed(GREY, 0.5)
        scene.rectangle(x, y, PIXEL - 2, PIXEL - 2, fill)
    middles = [(places[0][1] + places[-1][1] + PIXEL) / 2 for places in along]
    if len(rows.inputs) < rows.axis.input:
        scene.words(middles[1], middles[0] + 2, "...", anchor="middle", colour=FAINT)
    if len(columns.inputs) < columns.axis.input:
        for y in {along[0][0][1], along[0][-1][1]}:
            scene.words(middles[1], y + PIXEL / 2 + 2, "...", anchor="middle", colour=FAINT)
    y = along[0][-1][1] + PIXEL + 20
    taps, steps = _by(rows.axis.kernel, columns.axis.kernel), _by(rows.axis.stride, columns.axis.stride)
    steps = short(rows.axis.stride) if rows.axis.stride == columns.axis.stride else steps
    scene.words(LEFT, y, f"each pixel stamps {taps} taps,", SMALL, colour=FAINT)
    scene.words(LEFT, y + 16, f"the next one {steps} pixels further", SMALL, colour=FAINT)


def _by(rows: int, columns: int) -> str:
    return f"{short(rows)}x{short(columns)}"


def _pixels(places: Ruler, origin: float) -> list[tuple[int, float]]:
    """The input cells along one axis, with a gap where some are left out."""
    gap = GAP if len(places.inputs) < places.axis.input else 0
    return [(input, origin + n * PIXEL + gap * (n >= ENDS)) for n, input in enumerate(places.inputs)]


def _counts(scene: Scene, rows: Ruler, columns: Ruler) -> str:
    """The cells of the full result, as dark as the number of taps that they sum; returns what says that number."""
    if not _fine(rows, columns):
        for (top, bottom), (left, right) in product(rows.spans(rows.whole), columns.spans(columns.whole)):
            scene.rectangle(left, top, right - left, bottom - top, mixed(GREY, 0.5), FAINT)
        return ""
    along = [
        [(len(each.axis.taps(cell - each.axis.before)), cell in each.kept, place) for cell, place in each.cells()]
        for each in (rows, columns)
    ]
    most = max(count for count, *_ in along[0]) * max(count for count, *_ in along[1])
    numbers = len(str(most)) * DIGIT <= rows.cell - 2
    for (a, below, y), (b, beside, x) in product(*along):
        fill = shade(a * b, most) if below and beside else mixed(shade(a * b, most), 0.5)
        scene.rectangle(x, y, rows.cell, rows.cell, fill, FAINT, 0.5)
        if numbers and below and beside:
            scene.words(x + rows.cell / 2, y + rows.cell / 2 + 4.5, str(a * b), SMALL, "middle", on(fill))
    return "numbers" if numbers else "the darker"


def _cut(scene: Scene, rows: Ruler, columns: Ruler) -> bool:
    """Hatches what is cut off, if anything is."""
    (above, below), (before, after) = rows.cut, columns.cut
    all_columns = columns.spans(range(columns.axis.full))
    parts = [
        *product(rows.spans(above), all_columns),
        *product(rows.spans(below), all_columns),
        *product(rows.spans(rows.kept), columns.spans(before)),
        *product(rows.spans(rows.kept), columns.spans(after)),
    ]
    for (top, bottom), (left, right) in parts:
        scene.lines(hatch(left, top, right - left, bottom - top), mixed(INK, 0.45))
    return bool(parts)


def _stamp(scene: Scene, rows: Ruler, columns: Ruler, row: int, column: int, n: int) -> None:
    """The outline of a pixel's stamp, or of each of its taps where they are apart."""
    colour = COLOURS[n]
    stamps = rows.stamp(row), columns.stamp(column)
    steps = [each.axis.dilation if _fine(rows, columns) else 1 for each in (rows, columns)]
    inset = 1.5 + n
    for top, left in product(*(_parts(stamp, step) for stamp, step in zip(stamps, steps, strict=True))):
        for (y, below), (x, beside) in product(rows.spans(top), columns.spans(left)):
            width, height = beside - x - 2 * inset, below - y - 2 * inset
            scene.rectangle(x + inset, y + inset, width, height, None, colour, 3 if steps == [1, 1] else 2)


def _frame(scene: Scene, rows: Ruler, columns: Ruler) -> None:
    """The black frame around what is kept."""
    down, across = rows.spans(rows.kept), columns.spans(columns.kept)
    if down and across:
        top, left = down[0][0], across[0][0]
        scene.rectangle(left, top, across[-1][1] - left, down[-1][1] - top, None, INK, 2.5)


def _parts(stamp: range, step: int) -> list[range]:
    return [stamp] if step == 1 else [range(cell, cell + 1) for cell in stamp[::step]]
