# SPDX-License-Identifier: Apache-2.0
"""What `backstride explain` says at a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from backstride._explain.arithmetic import Along
from backstride._explain.cost import Cost
from backstride._explain.explanation import Explanation, paddings
from backstride._explain.paste import pasted
from backstride.convert import Port
from backstride.convert._port import moves

COLUMNS = 80
CALL = 3e-6  # seconds that a call takes by itself, about
ROWS, TAPS, CELLS = 8, 8, 16  # of tables; what is longer is shown by its first and last


def tables(explained: Explanation) -> Iterator[RenderableType]:
    """Tables and lines, section by section."""
    yield _prose(repr(explained.layer), "bold", 0)
    for axis, names in _alike(explained):
        yield from _heading(f"{names.capitalize()}: {axis.input} to {axis.output}")
        yield _arithmetic(axis)
        yield from _heading("  Legal lengths of the result, by TensorFlow's rules")
        yield _legal(axis, explained)
        yield from _heading(f"  Phases: which taps a cell sums, by its place modulo {axis.stride}")
        yield _phases(axis)
        yield from _heading("  Overlap: how many taps each cell sums")
        yield _overlap(axis)
    yield from _verdict(explained)
    ports = {name: port for name, port in explained.ports.items() if isinstance(port, Port)}
    yield from _usual(explained, ports)
    yield from _calls(explained.ports)
    yield from _cost(explained.cost)


def _alike(explained: Explanation) -> Iterator[tuple[Along, str]]:
    """Axes that differ, and the names of those that are the same."""
    names: dict[Along, list[str]] = {}
    for axis, name in zip(explained.axes, explained.names, strict=True):
        names.setdefault(axis, []).append(name)
    for axis, alike in names.items():
        yield axis, " and ".join(alike)


def _heading(words: str) -> Iterable[RenderableType]:
    return Text(), Text(words, style="bold")


def _prose(words: str, style: str = "", indent: int = 2) -> RenderableType:
    return Padding(Text(words, style=style), (0, 0, 0, indent), expand=False)


def _grid(rows: Iterable[tuple[str, str]], indent: int = 4, apart: int = 2) -> RenderableType:
    grid = Table.grid(padding=(0, apart, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name), Text(value))
    return Padding(grid, (0, 0, 0, indent), expand=False)


def _table(*headings: str, left: Sequence[int] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for n, heading in enumerate(headings):
        table.add_column(heading, justify="left" if n in left else "right", overflow="fold")
    return table


def _arithmetic(axis: Along) -> RenderableType:
    cut = [
        f"{cells} {end}" if cells >= 0 else f"{-cells} zero{'s' if cells < -1 else ''} added {end}"
        for cells, end in ((axis.before, "before"), (axis.after, "after"))
    ]
    result = f"{axis.full} - {_signed(axis.before)} - {_signed(axis.after)} = {axis.full - axis.before - axis.after}"
    if axis.full - axis.before - axis.after <= 0:
        result += ", which leaves nothing"
    return _grid(
        [
            ("input", str(axis.input)),
            ("full result", "(input - 1) * stride + (kernel - 1) * dilation + 1"),
            ("", f"({axis.input} - 1) * {axis.stride} + ({axis.kernel} - 1) * {axis.dilation} + 1 = {axis.full}"),
            ("cut", ", ".join(cut)),
            ("result", result),
        ]
    )


def _signed(cells: int) -> str:
    return f"({cells})" if cells < 0 else str(cells)


def _legal(axis: Along, explained: Explanation) -> RenderableType:
    table = _table("padding", "length", "cut before", "cut after", "", left=(0, 4))
    for rule in paddings(explained.padding):
        legal = axis.legal(rule)
        for length in _few(legal, ROWS // 2, axis.output):
            if length is None:
                table.add_row(rule, "...", "", "", "")
                continue
            sized = axis.sized(rule, length)
            chosen = rule == explained.padding and sized == axis
            zeros = "zeros are added" if sized.after < 0 else ""
            mark = "; ".join(filter(None, ["this layer" if chosen else "", zeros]))
            style = "bold" if chosen else ""
            table.add_row(rule, str(length), str(sized.before), str(sized.after), mark, style=style)
    return Padding(table, (0, 0, 0, 4), expand=False)


def _few(values: Sequence[int], most: int, wanted: int | None = None) -> Iterator[int | None]:
    """The first and the last, None for those between, and one that is wanted."""
    if len(values) <= most:
        yield from values
        return
    places = {*range(most - 1), len(values) - 1}
    if wanted is not None and wanted in values:
        places.add(values.index(wanted))
    last = -1
    for place in sorted(places):
        if place > last + 1:
            yield None
        yield values[place]
        last = place


def _phases(axis: Along) -> RenderableType:
    table = _table(f"cell % {axis.stride}", "taps", "count", left=(1,))
    for residue in _few(range(axis.stride), ROWS):
        if residue is None:
            table.add_row("...", "", "")
            continue
        phase = axis.phase(residue)
        taps = " ".join("..." if tap is None else str(tap) for tap in _few(phase, TAPS)) or "none"
        table.add_row(str(residue), taps, str(len(phase)))
    return Padding(table, (0, 0, 0, 4), expand=False)


def _overlap(axis: Along) -> RenderableType:
    inside = f"{axis.fewest} to {axis.most}, by phase" if axis.fewest < axis.most else str(axis.most)
    if not axis.interior:
        inside = f"no cell: of {axis.input} input cells, all are near an end"
    rows = [("inside", inside)]
    if axis.output <= 2 * CELLS:
        rows.append(("all cells", _counts(axis, range(axis.output)) or "none"))
    else:
        rows.append(("first cells", f"{_counts(axis, range(CELLS))} ..."))
        rows.append(("last cells", f"... {_counts(axis, range(axis.output - CELLS, axis.output))}"))
    return _grid(rows)


def _counts(axis: Along, cells: range) -> str:
    return " ".join(str(len(axis.taps(cell))) for cell in cells)


def _verdict(explained: Explanation) -> Iterator[RenderableType]:
    verdict = explained.verdict
    yield from _heading("Checkerboard artifacts")
    yield _prose(verdict.headline, "bold")
    if explained.layer.rank > 1 and verdict.most:
        yield _prose("The counts of the axes multiply.")
    yield _prose(verdict.meaning)
    yield _grid((("-", advice) for advice in verdict.advice), 2, 1)


def _usual(explained: Explanation, ports: dict[str, Port]) -> Iterator[RenderableType]:
    """By how far the recipes that have the right length, and only that, are off."""
    alike: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, port in ports.items():
        if port.usual:
            alike.setdefault((port.usual.arguments, port.shift), []).append(name)
    yield from _heading("The usual recipes, and how far they are off")
    if not alike:
        yield _prose("None of these frameworks has one for this layer.")
        return
    table = _table("recipe", "off by", "of", left=(0, 1, 2))
    for (arguments, shift), names in sorted(alike.items(), key=lambda each: not any(each[0][1])):
        off = ", ".join(f"{count} {way}" for count, way in moves(shift)) or "0"
        table.add_row(arguments, off, ", ".join(names), style="bold" if any(shift) else "")
    yield Padding(table, (0, 0, 0, 2), expand=False)
    if any(any(shift) for _, shift in alike):
        yield _prose("Off by: how many cells, and where to, the result is shifted.", "dim")


def _calls(ports: dict[str, Port | str]) -> Iterator[RenderableType]:
    for name, port in ports.items():
        yield from _heading(name)
        if isinstance(port, str):
            yield _prose(port)
            continue
        yield from map(Text, pasted(port.code))
        yield _prose(f"filter: {_order(port)}", "dim")
        for note in port.notes:
            yield _prose(note, "dim")


def _order(port: Port) -> str:
    """How the filter is laid out."""
    names = {"K": "*kernel", "I": "in channels", "O": "out channels"}
    if port.layer.groups > 1 and port.framework.groups(port.layer):
        names[port.layout.grouped] += " / groups"
    order = f"[{', '.join(names[letter] for letter in port.layout.order)}]"
    return f"{order}, the last tap first" if port.layout.flipped else order


def _cost(cost: Cost) -> Iterator[RenderableType]:
    yield from _heading("One image in float32")
    rows = [
        ("arithmetic", f"{_short(cost.flops, 1000)}FLOP, two for each multiply-add of the definition"),
        (
            "memory",
            f"input {_short(cost.input, 1024)}B, filter {_short(cost.filter, 1024)}B, "
            f"result {_short(cost.output, 1024)}B",
        ),
    ]
    if cost.seconds is not None:
        threads = f"{cost.threads} thread{'s' if cost.threads > 1 else ''}"
        time = f"{_time(cost.seconds)} expected" if cost.seconds > CALL else "some us, the call itself, expected"
        rows.append(("time here", f"{time} of backstride.plan with {threads} ({cost.algorithm})"))
    yield _grid(rows)


def _short(value: float, step: int) -> str:
    """With a prefix, so that few digits are left."""
    prefixes = (
        ["", "k", "M", "G", "T", "P", "E", "Z", "Y"] if step == 1000 else ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
    )
    place = 0
    while value >= step * 0.9995 and place < len(prefixes) - 1:
        value, place = value / step, place + 1
    return f"{value:.3g} {prefixes[place]}"


def _time(seconds: float) -> str:
    unit, size = next((each for each in (("s", 1.0), ("ms", 1e-3)) if seconds >= each[1]), ("us", 1e-6))
    return f"{seconds / size:.2g} {unit}" if seconds < 100 * size else f"{seconds / size:.0f} {unit}"
