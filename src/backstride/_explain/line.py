# SPDX-License-Identifier: Apache-2.0
"""The picture of a layer of one axis: the input, its stamps one below the other, what they add up to, what is kept."""

from __future__ import annotations

from dataclasses import dataclass

from backstride._explain.arithmetic import Along
from backstride._explain.ruler import Ruler, ruler
from backstride._explain.scene import COLOURS, FAINT, GREY, INK, Scene, Segment, mixed, on, shade

WIDTH, LEFT, GUTTER, MARGIN = 800, 24, 116, 44
PIXEL, STAMP, BAND, COUNT = 28, 24, 40, 30  # how high the rows of input, stamps, full result and result are
LARGEST, ENDS = 46, 3
DIGIT = 7.5  # its width
SMALL = 12


@dataclass(frozen=True)
class Usual:
    """What others crop before the result, and in what words."""

    before: int
    words: str


def line(axis: Along, title: str, verdict: str, usual: Usual | None = None) -> Scene:
    """The picture; `usual` is shown where it is not what is right."""
    others = range(usual.before, usual.before + axis.output) if usual else range(0)
    places = ruler(axis, GUTTER, WIDTH - GUTTER - MARGIN, LARGEST, ENDS, others)
    scene = Scene(WIDTH, title)
    top = scene.paragraph(LEFT, 34, title, 18, bold=True)
    top = scene.paragraph(LEFT, top - 2, sums(axis), colour=FAINT)
    top = _stamps(scene, places, _input(scene, places, top))
    bottom = _full(scene, places, top)
    bottom = _result(scene, places, top, bottom)
    bottom = scene.paragraph(GUTTER, bottom + 6, verdict, bold=True) - 4
    if usual:
        bottom = _usual(scene, places, bottom, others, usual)
    scene.height = bottom + 8
    return scene


def sums(axis: Along) -> str:
    """How long the full result is, and what becomes of it."""
    full = f"full result: ({axis.input} - 1) x {axis.stride} + ({axis.kernel} - 1) x {axis.dilation} + 1 = {axis.full}"
    ends = [
        f"{'cut' if cells > 0 else 'add'} {abs(cells)} {end}"
        for cells, end in ((axis.before, "before"), (axis.after, "after"))
        if cells
    ]
    return f"{full};  {', '.join(ends) or 'nothing is cut'};  result: {axis.output}"


def colour(places: Ruler, input: int) -> str:
    """That of an input cell; grey if it is not drawn."""
    return COLOURS[places.inputs.index(input) % len(COLOURS)] if input in places.inputs else GREY


def hatch(x: float, y: float, width: float, height: float, apart: float = 7) -> list[Segment]:
    """Lines from lower left to upper right that fill a rectangle."""
    return [
        (x + max(n - height, 0), y + min(n, height), x + min(n, width), y + max(n - width, 0))
        for n in (step * apart for step in range(1, int((width + height) / apart) + 1))
    ]


def _label(scene: Scene, middle: float, name: str, note: str = "") -> None:
    scene.words(LEFT, middle + (-2 if note else 5), name, bold=True)
    if note:
        scene.words(LEFT, middle + 13, note, SMALL, colour=FAINT)


def _input(scene: Scene, places: Ruler, top: float) -> float:
    """Each input cell over the middle of its stamp."""
    axis = places.axis
    side = max(min(PIXEL, axis.stride * places.cell - 2), 2)
    _label(scene, top + PIXEL / 2, "input", _cells(axis.input))
    for input in places.inputs:
        middle = _middle(places, input)
        fill = colour(places, input)
        scene.rectangle(middle - side / 2, top, side, PIXEL, fill)
        if len(str(input)) * DIGIT < side:
            scene.words(middle, top + PIXEL / 2 + 5, str(input), anchor="middle", colour=on(fill))
    if len(places.inputs) < axis.input:
        middle = places.gap or (_middle(places, places.inputs[ENDS - 1]) + _middle(places, places.inputs[ENDS])) / 2
        scene.words(middle, top + PIXEL / 2 + 5, "...", anchor="middle", colour=FAINT)
    return top + PIXEL + 16


def _middle(places: Ruler, input: int) -> float:
    spans = places.spans(places.stamp(input))
    return (spans[0][0] + spans[-1][1]) / 2


def _stamps(scene: Scene, places: Ruler, top: float) -> float:
    """Below each input cell its footprint, in rows of their own."""
    axis, rows = places.axis, []
    for n, input in enumerate(places.inputs):
        # Those of the other end, behind the gap, begin at the top again.
        row = n - ENDS if places.gap and n >= ENDS else n
        rows.append((input, top + row * (STAMP + 6)))
    scene.lines(
        ((_middle(places, input), top - 16, _middle(places, input), y) for input, y in rows),
        GREY,
    )
    _label(scene, top + STAMP / 2, "stamps", f"{axis.kernel} tap{'s' if axis.kernel > 1 else ''} each")
    where = dict(places.cells()) if places.fine else {}
    for input, y in rows:
        tint = mixed(colour(places, input), 0.45)
        stamp = places.stamp(input)
        if not places.fine:
            for begin, end in places.spans(stamp):
                scene.rectangle(begin, y, max(end - begin, 1), STAMP, tint, colour(places, input))
            continue
        if axis.dilation > 1:
            scene.lines(((a, y + STAMP / 2, b, y + STAMP / 2) for a, b in places.spans(stamp)), colour(places, input))
        for tap in range(axis.kernel):
            cell = stamp[tap * axis.dilation]
            if cell in where:
                scene.rectangle(where[cell], y, places.cell, STAMP, tint, colour(places, input))
                name = f"w{tap}" if (len(str(axis.kernel)) + 2) * DIGIT < places.cell else str(tap)
                if len(str(axis.kernel)) * DIGIT < places.cell:
                    scene.words(where[cell] + places.cell / 2, y + 17, name, SMALL, "middle")
    bottom = max(y for _, y in rows) + STAMP + 16
    if len(places.inputs) < axis.input:
        more = axis.input - len(places.inputs)
        scene.words(GUTTER, bottom - 2, f"... and {_cells(more)} more, whose shares are grey", SMALL, colour=FAINT)
        bottom += 16
    return bottom


def _full(scene: Scene, places: Ruler, top: float) -> float:
    """The full result, each cell in the colours of the input cells that it sums; what is cut is hatched."""
    axis, kept = places.axis, places.kept
    _label(scene, top + BAND / 2, "full result", _cells(axis.full))
    if places.fine:
        for cell, x in places.cells():
            taps = axis.taps(cell - axis.before) if 0 <= cell < axis.full else range(0)
            fade = 0.9 if cell in kept else 0.35
            drawn = min(len(taps), BAND)
            for n in range(drawn):
                tap = taps[len(taps) - 1 - n * len(taps) // drawn]
                fill = mixed(colour(places, axis.source(cell - axis.before, tap)), fade)
                scene.rectangle(x, top + n * BAND / drawn, places.cell, BAND / drawn, fill)
            scene.rectangle(x, top, places.cell, BAND, None, FAINT, 1 if places.cell > 6 else 0.5)
            if not 0 <= cell < axis.full and places.cell > DIGIT:
                scene.words(x + places.cell / 2, top + BAND / 2 + 4, "0", SMALL, "middle", FAINT)
    else:
        for begin, end in places.spans(range(axis.full)):
            scene.rectangle(begin, top, end - begin, BAND, GREY, FAINT)
    if places.gap:
        scene.words(places.gap, top + BAND / 2 + 4, "...", anchor="middle", colour=FAINT)
    bottom = top + BAND
    for n, cells in enumerate(places.cut):
        spans = places.spans(cells)
        for begin, end in spans:
            scene.lines(hatch(begin, top, end - begin, BAND), FAINT)
            scene.lines([(begin, bottom + 6, end, bottom + 6)], FAINT, 2)
        if spans:
            x = spans[0][0] + 7 if n else spans[-1][1] - 7
            scene.words(x, bottom + 22, f"cut {short(len(cells))}", SMALL, "start" if n else "end", FAINT)
    return bottom + 12


def _result(scene: Scene, places: Ruler, top: float, bottom: float) -> float:
    """What is kept, framed, with the number of taps that each cell sums."""
    axis, kept = places.axis, places.kept
    _label(scene, bottom + COUNT / 2, "result", _cells(axis.output))
    spans = places.spans(kept)
    if not spans:
        scene.words(GUTTER, bottom + COUNT + 5, "nothing is left", colour=FAINT)
        return bottom + COUNT + 28
    if places.fine:
        counts = {cell: len(axis.taps(cell - axis.before)) for cell, _ in places.cells() if cell in kept}
        most = max(*counts.values(), 1)
        legible = len(str(most)) * DIGIT < places.cell
        for cell, x in places.cells():
            if cell in counts:
                fill = shade(counts[cell], most)
                scene.rectangle(x, bottom, places.cell, COUNT, fill, FAINT, 1 if places.cell > 6 else 0.5)
                if legible:
                    middle = x + places.cell / 2
                    scene.words(middle, bottom + 20, str(counts[cell]), anchor="middle", colour=on(fill))
    else:
        for begin, end in spans:
            scene.rectangle(begin, bottom, end - begin, COUNT, mixed(COLOURS[0], 0.25), FAINT)
    if places.gap:
        scene.words(places.gap, bottom + COUNT / 2 + 4, "...", anchor="middle", colour=FAINT)
    ends = {spans[0][0], spans[-1][1]}
    scene.lines(((x, top - 5, x, bottom + COUNT + 5) for x in sorted(ends)), INK, 2.5)
    bottom += COUNT
    if places.fine and not legible:
        bottom = _key(scene, bottom + 10, sorted(set(counts.values())), most)
    if places.fine:
        scene.words(GUTTER, bottom + 18, "how many taps each cell of the result sums", SMALL, colour=FAINT)
        bottom += 14
    return bottom + 22


def _key(scene: Scene, top: float, counts: list[int], most: int) -> float:
    """Which shade is which number of taps."""
    shown = counts if len(counts) <= 12 else [*counts[:5], *counts[-6:]]
    for n, count in enumerate(shown):
        x = GUTTER + n * 50
        scene.rectangle(x, top, 12, 12, shade(count, most), FAINT)
        scene.words(x + 17, top + 11, str(count), SMALL, colour=FAINT)
    return top + 16


def _usual(scene: Scene, places: Ruler, top: float, cells: range, usual: Usual) -> float:
    """Which cells the usual recipe keeps instead."""
    _label(scene, top + 12, "usual recipe", f"off by {_cells(abs(usual.before - places.axis.before))}")
    spans = places.spans(cells)
    for begin, end in spans:
        scene.rectangle(begin, top + 2, end - begin, 20, mixed(COLOURS[5], 0.15), COLOURS[5], 2)
    if places.fine:
        starts = [x for cell, x in places.cells() if cell in cells]
        scene.lines(((x, top + 2, x, top + 22) for x in starts[1:]), COLOURS[5], 0.5)
    if places.gap:
        scene.words(places.gap, top + 16, "...", anchor="middle", colour=FAINT)
    return scene.paragraph(GUTTER, top + 42, usual.words) - 8


def _cells(count: int) -> str:
    return f"{short(count)} cell{'s' if count != 1 else ''}"


def short(count: int) -> str:
    """A number that fits beside a row."""
    return str(count) if count < 10**7 else f"{count:.2g}"
