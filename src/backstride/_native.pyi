# SPDX-License-Identifier: Apache-2.0
"""What native/bindings.cc defines."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backstride._geometry import Operand

ISAS: tuple[str, ...]

class Plan:
    def __init__(
        self,
        wrt: Operand,
        element: str,
        axes: Sequence[tuple[int, int, int, int, int, int]],
        batch: int,
        in_channels: int,
        out_channels: int,
        groups: int,
        channels_first: bool,
        kernel: str = "",
    ) -> None: ...
    def run(self, first: NDArray[np.generic], second: NDArray[np.generic], result: NDArray[np.generic]) -> None: ...
    @property
    def kernel(self) -> str: ...

def kernels() -> list[tuple[str, str, str, int, int]]: ...
def isa() -> str: ...
def lower_isa(name: str) -> None: ...
def threads() -> int: ...
def set_threads(count: int) -> None: ...
def physical_memory() -> int: ...
def fma_peak() -> float: ...
def erfc(x: NDArray[np.float32] | NDArray[np.float64]) -> None: ...
