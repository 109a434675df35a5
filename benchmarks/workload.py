# SPDX-License-Identifier: Apache-2.0
"""The layers of workloads.toml: sizes, crops and inputs."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "workloads.toml"


@dataclass(frozen=True)
class Workload:
    """One layer. Arrays are channels last; filters `[*kernel, out_channels / groups, in_channels]`."""

    name: str
    source: str
    batch: int
    size: tuple[int, ...]
    channels: tuple[int, int]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str = "SAME"
    groups: int = 1

    @property
    def rank(self) -> int:
        return len(self.size)

    @property
    def output(self) -> tuple[int, ...]:
        """The lengths of the result."""
        extra = [max(k - s, 0) * (self.padding == "VALID") for k, s in zip(self.kernel, self.stride, strict=True)]
        return tuple(i * s + e for i, s, e in zip(self.size, self.stride, extra, strict=True))

    @property
    def crop(self) -> list[tuple[int, int]]:
        """What is cut off the full result per axis, before and after; negative where zeros are added."""
        pairs = []
        for i, k, s, o in zip(self.size, self.kernel, self.stride, self.output, strict=True):
            cut = (i - 1) * s + k - o
            before = max(cut, 0) // 2 if self.padding == "SAME" else 0
            pairs.append((before, cut - before))
        return pairs

    @property
    def operations(self) -> int:
        """Multiplications and additions of the plain definition, also where the result is cropped."""
        return 2 * self.batch * prod(self.size) * prod(self.kernel) * prod(self.channels) // self.groups

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The input and the filter: normal, so that the result is of the order of 1; always the same."""
        random = np.random.default_rng(len(self.name))
        inputs, outputs = self.channels
        value = random.standard_normal((self.batch, *self.size, inputs), np.float32)
        terms = prod(self.kernel) * inputs / self.groups / prod(self.stride)
        shape = (*self.kernel, outputs // self.groups, inputs)
        return value, random.standard_normal(shape, np.float32) / np.float32(terms**0.5)


def workloads(parts: list[str]) -> list[Workload]:
    """Those whose names hold one of `parts`, or all."""
    found = []
    for name, entry in tomllib.loads(FILE.read_text()).items():
        if not parts or any(part in name for part in parts):
            entry = {key: tuple(item) if isinstance(item, list) else item for key, item in entry.items()}
            found.append(Workload(name=name, **entry))
    return found
