# SPDX-License-Identifier: Apache-2.0
"""The JSON file of all that was measured, and what follows from its numbers.

An entry is one layer in one mode, at one dtype and number of threads; a `Group` is all entries of one such table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS
from workload import MODES

Entry = dict[str, Any]
DTYPES = ("float32", "float64", "float16", "bfloat16")


@dataclass(frozen=True)
class Group:
    """The entries of one table, in the order in which they were measured."""

    mode: str
    dtype: str
    threads: int
    entries: tuple[Entry, ...]

    @property
    def title(self) -> str:
        return f"{self.mode}, {self.dtype}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def peers(self) -> list[str]:
        return [name for name in PEERS if any(name in entry["peers"] for entry in self.entries)]


class Results:
    """Kept in a file, which is written whole after every layer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = json.loads(path.read_text())["entries"] if path.exists() else []

    def find(self, mode: str, dtype: str, threads: int, layer: str) -> Entry | None:
        key = (mode, dtype, threads, layer)
        return next((entry for entry in self.entries if _key(entry) == key), None)

    def add(self, entry: Entry) -> None:
        """In the place of the one of the same layer, if there is one."""
        old = self.find(*_key(entry))
        if old is None:
            self.entries.append(entry)
        else:
            self.entries[self.entries.index(old)] = entry
        write(self.path, json.dumps({"entries": self.entries}, indent=1))

    def groups(self) -> list[Group]:
        """Sorted: by threads, dtype and mode."""
        keys = {_key(entry)[:3] for entry in self.entries}
        order = sorted(keys, key=lambda key: (-key[2], DTYPES.index(key[1]), MODES.index(key[0])))
        return [Group(*key, tuple(entry for entry in self.entries if _key(entry)[:3] == key)) for key in order]


def _key(entry: Entry) -> tuple[str, str, int, str]:
    return entry["mode"], entry["dtype"], entry["threads"], entry["layer"]


def write(path: Path, text: str) -> None:
    """All of it or nothing."""
    temporary = path.with_suffix(".part")
    temporary.write_text(text)
    temporary.replace(path)


def milliseconds(entry: Entry, name: str) -> float | None:
    found: float | None = entry["peers"].get(name, {}).get("ms")
    return found


def fastest(entry: Entry) -> str | None:
    """The name of the fastest other library."""
    others = {
        name: peer["ms"]
        for name, peer in entry["peers"].items()
        if name != "backstride" and not PEERS[name].host and "ms" in peer
    }
    return min(others, key=others.__getitem__, default=None)


def ratio(entry: Entry, name: str = "backstride") -> float | None:
    """The fastest other's time over ours; within another library, that library's."""
    other, ours = PEERS[name].host or fastest(entry), milliseconds(entry, name)
    theirs = milliseconds(entry, other) if other else None
    return theirs / ours if theirs and ours else None


def ratios(entries: tuple[Entry, ...] | list[Entry], name: str = "backstride") -> dict[str, float]:
    """By layer, where there is one."""
    return {entry["layer"]: found for entry in entries if (found := ratio(entry, name)) is not None}


def share(entry: Entry) -> float | None:
    """The operations of the definition per second that we do, of those that float32 multiply-adds could do."""
    ours = milliseconds(entry, "backstride")
    return entry["operations"] / (ours / 1e3) / entry["peak"] if ours and entry["peak"] else None


def roofline(entry: Entry) -> float | None:
    """What float32 multiply-adds or memory would take at least for the definition, whichever binds, of what we take."""
    ours = milliseconds(entry, "backstride")
    if not ours or not entry["peak"] or not entry.get("bandwidth"):
        return None
    return max(entry["operations"] / entry["peak"], entry["bytes"] / entry["bandwidth"]) / (ours / 1e3)


def geometric_mean(values: list[float]) -> float | None:
    return float(np.exp(np.mean(np.log(values)))) if values else None
