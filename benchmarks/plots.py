# SPDX-License-Identifier: Apache-2.0
"""Pictures of what was measured."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator
from peers import PEERS
from results import Group, Results, geometric_mean, milliseconds, ratios

# Okabe and Ito's colours, which everyone can tell apart, and a marker each.
STYLES = {
    "backstride": ("#000000", "o"),
    "torch": ("#D55E00", "s"),
    "torch_channels_last": ("#E69F00", "D"),
    "tensorflow": ("#56B4E9", "^"),
    "jax": ("#009E73", "v"),
    "backstride_jax": ("#009E73", "o"),
    "onnxruntime": ("#CC79A7", "P"),
    "openvino": ("#0072B2", "X"),
}
FASTER, SLOWER = "#0072B2", "#D55E00"
WIDTH = 8.8  # inches, of 100 pixels: the width of a README
# More layers than this stand in two columns.
COLUMN = 30
TICKS = (0.06, 0.12, 0.25, 0.5, 0.7, 1, 1.4, 2, 3, 4, 6, 8, 16, 32, 64)


def draw(results: Results) -> list[Path]:
    """One picture per table, beside the JSON file."""
    matplotlib.rcParams["font.size"] = 9
    drawn = []
    for group in results.groups():
        figure = scaling(group) if group.mode == "scaling" else standing(group)
        if figure:
            path = results.path.with_name(f"{results.path.stem}-{group.mode}-{group.dtype}-{group.threads}.png")
            figure.savefig(path, dpi=100)
            drawn.append(path)
    return drawn


def standing(group: Group) -> Figure | None:
    """The ratio of every layer, sorted."""
    found = sorted(ratios(group.entries).items(), key=lambda item: -item[1])
    if not found:
        return None
    designed = {entry["layer"] for entry in group.entries if entry["work"]["kernels"]}
    columns = 2 if len(found) > COLUMN else 1
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(WIDTH, 1.3 + 0.17 * rows), layout="constrained")
    mean = geometric_mean([value for _, value in found])
    assert mean is not None
    figure.suptitle(
        f"{group.title}: time of the fastest other library / time of backstride, which is faster where this is over 1\n"
        f"{len(found)} layers, geometric mean {mean:.2f} (dashed){'; bold: the fifteen' if designed else ''}",
        fontsize=9.5,
    )
    low, high = min(1, found[-1][1]) / 1.6, max(1, found[0][1]) * 1.6
    for n in range(columns):
        axes = figure.add_subplot(1, columns, n + 1)
        dots(axes, found[n * rows : (n + 1) * rows], rows, designed)
        axes.axvline(mean, color="#555555", linestyle="--", linewidth=1)
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low < tick < high]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return figure


def dots(axes: Axes, found: list[tuple[str, float]], rows: int, designed: set[str]) -> None:
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    for row, (_, value) in enumerate(found):
        faster = value >= 1
        color = FASTER if faster else SLOWER
        axes.plot([1, value], [row, row], color=color, linewidth=1.5, alpha=0.5)
        axes.plot(value, row, "o" if faster else "D", color=color, markersize=5)
        side, align = (6, "left") if faster else (-6, "right")
        axes.annotate(
            f"{value:.2f}", (value, row), (side, 0), textcoords="offset points", ha=align, va="center", fontsize=7.5
        )
    axes.set_yticks(range(len(found)), [layer for layer, _ in found])
    for tick in axes.get_yticklabels():
        tick.set_fontweight("bold" if tick.get_text() in designed else "normal")
    axes.set_ylim(rows - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def scaling(group: Group) -> Figure | None:
    """Time against each axis, both logarithmic."""
    grown = sorted({entry["layer"].split()[0] for entry in group.entries})
    figure = Figure(figsize=(WIDTH, 0.8 + 3 * -(-len(grown) // 2)), layout="constrained")
    lines = {}
    for n, axis in enumerate(grown):
        axes = figure.add_subplot(-(-len(grown) // 2), min(len(grown), 2), n + 1)
        for name in reversed(group.peers):
            points = sorted(
                (int(entry["layer"].split()[1]), time)
                for entry in group.entries
                if entry["layer"].startswith(f"{axis} ") and (time := milliseconds(entry, name)) is not None
            )
            if points:
                color, marker = STYLES[name]
                width = 2.2 if name == "backstride" else 1.2
                (lines[name],) = axes.loglog(
                    *zip(*points, strict=True), color=color, marker=marker, markersize=5, linewidth=width
                )
        axes.set_xlabel(axis)
        axes.set_ylabel("ms")
        for scale in (axes.xaxis, axes.yaxis):
            scale.set_major_formatter(lambda value, _: f"{value:g}")
            scale.set_minor_formatter(NullFormatter())
        axes.grid(color="#DDDDDD")
        axes.spines[["top", "right"]].set_visible(False)
    if not lines:
        return None
    shown = [name for name in PEERS if name in lines]
    figure.legend(
        [lines[name] for name in shown], [PEERS[name].label for name in shown], loc="outside lower center", ncols=4
    )
    figure.suptitle(f"{group.title}: one layer, grown along one axis at a time", fontsize=10)
    return figure
