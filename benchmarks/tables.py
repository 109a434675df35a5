# SPDX-License-Identifier: Apache-2.0
"""What was measured as tables: for the terminal, and in Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peers import PEERS
from results import Group, Results, fastest, geometric_mean, milliseconds, ratio, ratios, roofline, share
from rich.table import Table

NOTES = [
    "Times are milliseconds: the median of single calls, ± half the range of the middle 80 %.",
    "Ratio: the time of the fastest other library over backstride's. Summaries are geometric means; the fifteen are "
    "the layers that the kernels were designed for.",
    "Of peak: the operations of the definition per second, of those of float32 multiply-adds, measured in between.",
    "Roofline: the time that these multiply-adds would take for the definition, or copies of 32 MB for its arrays, "
    "whichever is longer, over backstride's. Fewer multiplications, or others than float32's, can exceed it.",
    "Error: the largest difference from float64, over the largest result.",
    "Memory: by how much the process's resident memory peaks (VmHWM) from before the filter is given until after two "
    "calls: filters in other layouts or packed, scratch memory, the result.",
    "Over float32: our own time in float32 over that in this dtype.",
]


@dataclass(frozen=True)
class Sheet:
    title: str
    columns: list[str]
    rows: list[list[str]]
    caption: str = ""


def sheets(group: Group) -> list[Sheet]:
    return [times(group), costs(group)]


def times(group: Group) -> Sheet:
    rows = []
    for entry in group.entries:
        cells = [time(entry["peers"].get(name, {})) for name in group.peers]
        kernel = entry["peers"].get("backstride", {}).get("algorithm", "-")
        limits = [percent(share(entry)), percent(roofline(entry))]
        rows.append([entry["layer"], *cells, shown(ratio(entry)), label(fastest(entry)), *limits, kernel])
    found = list(ratios(group.entries).values())
    return Sheet(
        group.title,
        ["layer", *map(label, group.peers), "ratio", "fastest other", "of peak", "roofline", "kernel"],
        rows,
        f"geometric mean of {len(found)} ratios: {shown(geometric_mean(found))}",
    )


def costs(group: Group) -> Sheet:
    rows = [[entry["layer"], *(cost(entry["peers"].get(name, {})) for name in group.peers)] for entry in group.entries]
    return Sheet(
        f"{group.title}: largest error, and MB of memory",
        ["layer", *map(label, group.peers)],
        rows,
    )


def goals(results: Results) -> Sheet:
    """One line per table: what the comparison comes to."""
    rows = []
    for group in results.groups():
        found = ratios(group.entries)
        designed = ratios([entry for entry in group.entries if entry["work"]["kernels"]])
        worst = min(found, key=found.__getitem__, default=None)
        rows.append(
            [
                group.title,
                str(len(found)),
                shown(geometric_mean(list(found.values()))),
                f"{shown(geometric_mean(list(designed.values())))} of {len(designed)}" if designed else "-",
                f"{found[worst]:.2f} {worst}" if worst else "-",
                shown(over_float32(group, results)),
            ]
        )
    columns = ["", "layers", "ratio", "of the fifteen", "worst", "over float32"]
    return Sheet("summary", columns, rows)


def hosted(results: Results) -> Sheet:
    """One line per table and library that calls our kernels: how much faster than its own they are."""
    rows = []
    for group in results.groups():
        for name in group.peers:
            if not PEERS[name].host:
                continue
            found = ratios([entry for entry in group.entries if max(entry["work"]["stride"]) > 1], name)
            worst = min(found, key=found.__getitem__, default=None)
            line = [group.title, label(name), str(len(found)), shown(geometric_mean(list(found.values())))]
            rows.append([*line, f"{found[worst]:.2f} {worst}" if worst else "-"])
    return Sheet("within other libraries, over their own", ["", "", "layers with a stride", "ratio", "worst"], rows)


def over_float32(group: Group, results: Results) -> float | None:
    """The geometric mean of our times in float32 over those in another dtype."""
    if group.dtype == "float32":
        return None
    quotients = []
    for entry in group.entries:
        single = results.find(group.mode, "float32", group.threads, entry["layer"])
        if single and (slow := milliseconds(single, "backstride")) and (fast := milliseconds(entry, "backstride")):
            quotients.append(slow / fast)
    return geometric_mean(quotients)


def failures(group: Group) -> list[str]:
    """A line for each thing that a library could not do, or did wrong, with the layers."""
    layers: dict[str, list[str]] = {}
    for entry in group.entries:
        for name, peer in entry["peers"].items():
            if "error" in peer:
                layers.setdefault(f"{label(name)}: {peer['error']}", []).append(entry["layer"])
    return [f"{what} ({', '.join(where)})" for what, where in layers.items()]


def label(name: str | None) -> str:
    return PEERS[name].label if name else "-"


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def time(peer: dict[str, Any]) -> str:
    if "ms" not in peer:
        return "-"
    low, high = peer["spread"]
    return f"{peer['ms']:.3g} ±{(high - low) / 2 / peer['ms']:.0%}"


def cost(peer: dict[str, Any]) -> str:
    if "difference" not in peer:
        return "-"
    memory = peer["memory"]
    return f"{peer['difference']:.0e}, {'-' if memory is None else f'{memory / 1e6:.1f}'}"


def percent(found: float | None) -> str:
    return "-" if found is None else f"{found:.0%}"


def rich(sheet: Sheet) -> Table:
    first, *others = sheet.columns
    table = Table(title=sheet.title, caption=sheet.caption)
    table.add_column(first, no_wrap=True)
    for column in others:
        table.add_column(column, justify="right")
    for row in sheet.rows:
        table.add_row(*row)
    return table


def markdown(results: Results) -> str:
    """All tables, with the versions."""
    parts = ["# Benchmark", *_lines(goals(results)), *_lines(hosted(results)), *(f"- {note}" for note in NOTES)]
    for group in results.groups():
        versions = {label(n): entry["peers"][n]["version"] for entry in group.entries for n in entry["peers"]}
        for sheet in sheets(group):
            parts += _lines(sheet)
        parts.append("Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
        parts += [f"- {line}" for line in failures(group)]
    return "\n".join(parts) + "\n"


def _lines(sheet: Sheet) -> list[str]:
    rows = [sheet.columns, ["---"] * len(sheet.columns), *sheet.rows]
    table = ["| " + " | ".join(row) + " |" for row in rows]
    return ["", f"## {sheet.title}", "", *table, "", sheet.caption, ""]
