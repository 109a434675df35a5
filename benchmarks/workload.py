# SPDX-License-Identifier: Apache-2.0
"""What is measured: the layers of workloads.toml, one layer grown along each axis, a tiny one; and their inputs."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parent / "workloads.toml"
MODES = ("packed", "eager", "gradients", "scaling", "overhead")


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
    kernels: bool = False

    @classmethod
    def read(cls, entry: dict[str, Any]) -> Workload:
        """From TOML or JSON, which have lists."""
        lists = {key: tuple(item) for key, item in entry.items() if isinstance(item, list)}
        return cls(**(entry | lists))

    @property
    def rank(self) -> int:
        return len(self.size)

    @property
    def output(self) -> tuple[int, ...]:
        """The lengths of the result."""
        extra = [max(k - s, 0) * (self.padding == "VALID") for k, s in zip(self.kernel, self.stride, strict=True)]
        return tuple(i * s + e for i, s, e in zip(self.size, self.stride, extra, strict=True))

    @property
    def filter(self) -> tuple[int, ...]:
        """The shape of the filter."""
        return *self.kernel, self.channels[1] // self.groups, self.channels[0]

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

    @property
    def elements(self) -> int:
        """Of the input, the filter and the output."""
        inputs, outputs = (
            self.batch * prod(n) * c for n, c in zip((self.size, self.output), self.channels, strict=True)
        )
        return inputs + outputs + prod(self.filter)

    @property
    def taps(self) -> int:
        """How many taps reach one cell of the result, at most."""
        return prod(ceil(k / s) for k, s in zip(self.kernel, self.stride, strict=True))

    def arrays(self, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Input, filter and cotangent: normal, so that the result is of the order of 1; always the same."""
        random = np.random.default_rng(len(self.name))
        scale = np.float32((prod(self.kernel) * self.channels[0] / self.groups / prod(self.stride)) ** 0.5)
        value = random.standard_normal((self.batch, *self.size, self.channels[0]), np.float32)
        filter = random.standard_normal(self.filter, np.float32) / scale
        cotangent = random.standard_normal((self.batch, *self.output, self.channels[1]), np.float32)
        kind = number_type(dtype)
        return value.astype(kind), filter.astype(kind), cotangent.astype(kind)


def number_type(dtype: str) -> np.dtype:
    if dtype == "bfloat16":
        import ml_dtypes

        dtype = ml_dtypes.bfloat16
    return np.dtype(dtype)


@dataclass(frozen=True)
class Task:
    """One line of a table. `how` is what the peers are asked for: 'packed', 'eager' or 'gradients'."""

    mode: str
    how: str
    work: Workload


def tasks(modes: list[str], parts: list[str]) -> list[Task]:
    """Those whose names hold one of `parts`, or all."""
    found = []
    for mode in modes:
        if mode == "scaling":
            found += [Task(mode, "packed", work) for work in grown()]
        elif mode == "overhead":
            found += [Task(mode, how, replace(TINY, name=f"4x4x8, {how}")) for how in ("packed", "eager")]
        else:
            found += [Task(mode, mode, work) for work in published()]
    return [task for task in found if not parts or any(part in task.work.name for part in parts)]


def published() -> list[Workload]:
    return [Workload.read({"name": name} | entry) for name, entry in tomllib.loads(FILE.read_text()).items()]


TINY = Workload("4x4x8", "what a call costs besides its work", 1, (4, 4), (8, 8), (4, 4), (2, 2))
MIDDLE = Workload("", "one layer, grown", 4, (16, 16), (16, 16), (4, 4), (2, 2), "VALID")


def grown() -> list[Workload]:
    """`MIDDLE` with one axis at a time over two decades. VALID, so that a large kernel is not mostly cropped."""
    found = []
    for n in (2**power for power in range(8)):
        found += [
            replace(MIDDLE, name=f"batch {n}", batch=n),
            replace(MIDDLE, name=f"side {2 * n}", size=(2 * n, 2 * n)),
            replace(MIDDLE, name=f"channels {2 * n}", channels=(2 * n, 2 * n)),
            replace(MIDDLE, name=f"kernel {n}", kernel=(n, n)),
        ]
    return sorted(found, key=lambda work: work.name.split()[0])
