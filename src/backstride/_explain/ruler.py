# SPDX-License-Identifier: Apache-2.0
"""Where the cells of an axis are in a picture: all of them side by side, or those of both ends and a gap between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backstride._explain.arithmetic import Along

GAP = 26
ZEROS = 4  # cells of zeros that are drawn at either end, of how many there may be
FINEST = 3  # cells smaller than that are not drawn one by one


@dataclass(frozen=True)
class Ruler:
    """The full result of an axis along a line, with the zeros that are added to it.

    Attributes:
        axis: the numbers.
        inputs: the input cells that are drawn.
        segments: the cells that are drawn, counted from the first of the full result; two of them have a gap between.
        origin: where the first one begins.
        cell: how long one is.
    """

    axis: Along
    inputs: tuple[int, ...]
    segments: tuple[range, ...]
    origin: float
    cell: float

    @property
    def fine(self) -> bool:
        """Whether cells are large enough to be drawn one by one."""
        return self.cell >= FINEST

    @property
    def end(self) -> float:
        """Where the last cell ends."""
        return self.spans(self.segments[-1])[-1][1]

    @property
    def gap(self) -> float | None:
        """The middle of the gap, if there is one."""
        return self.spans(self.segments[0])[0][1] + GAP / 2 if len(self.segments) > 1 else None

    def cells(self) -> Iterator[tuple[int, float]]:
        """The cells, and where each begins."""
        begin = self.origin
        for segment in self.segments:
            for n, cell in enumerate(segment):
                yield cell, begin + n * self.cell
            begin += len(segment) * self.cell + GAP

    def spans(self, cells: range) -> list[tuple[float, float]]:
        """Where these neighbours begin and end, of each segment those that are in it."""
        spans, begin = [], self.origin
        for segment in self.segments:
            first, last = max(cells.start, segment.start), min(cells.stop, segment.stop)
            if first < last:
                spans.append((begin + (first - segment.start) * self.cell, begin + (last - segment.start) * self.cell))
            begin += len(segment) * self.cell + GAP
        return spans

    def stamp(self, input: int) -> range:
        """The cells from the first to the last tap of an input cell."""
        return range(input * self.axis.stride, input * self.axis.stride + self.axis.extent)

    @property
    def kept(self) -> range:
        """The cells that are the result."""
        return range(self.axis.before, self.axis.before + self.axis.output)

    @property
    def whole(self) -> range:
        """All cells, drawn or not."""
        return range(self.segments[0].start, self.segments[-1].stop)

    @property
    def cut(self) -> tuple[range, range]:
        """The cells of the full result before and after the result."""
        kept, full = self.kept, self.axis.full
        return range(min(max(kept.start, 0), full)), range(max(min(kept.stop, full), kept.start, 0), full)


def ruler(axis: Along, origin: float, room: float, largest: float, ends: int, others: range = range(0)) -> Ruler:
    """The ruler with cells as large as the room allows, for all input cells or so many of each end.

    `others` are cells that are to be seen besides.
    """
    kept = range(axis.before, axis.before + axis.output)
    first = max(min(0, kept.start, others.start), -ZEROS)
    last = min(max(axis.full, kept.stop, others.stop), axis.full + ZEROS)
    reach = (ends - 1) * axis.stride + axis.extent
    inputs = tuple(range(min(axis.input, 2 * ends)))
    segments: tuple[range, ...] = (range(first, last),)
    if axis.input > 2 * ends:
        inputs = *range(ends), *range(axis.input - ends, axis.input)
        if axis.full > 2 * reach + 2:
            segments = (range(first, reach), range(axis.full - reach, last))
    total = sum(map(len, segments))
    cell = min(largest, (room - GAP * (len(segments) - 1)) / total)
    return Ruler(axis, inputs, segments, origin, cell)
