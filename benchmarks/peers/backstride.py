# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from workload import Workload

import backstride
from backstride import _native, _ops, _plan, _precision
from backstride._backends import numpy as core
from backstride._geometry import Axis, Geometry, Operand
from peers import Make, Peer, Run

# As large as the arrays of a large layer.
COPIED = 32 << 20


def geometry(work: Workload) -> Geometry:
    sizes = zip(work.size, work.kernel, work.output, work.stride, work.crop, strict=True)
    axes = tuple(Axis(i, k, o, s, 1, before) for i, k, o, s, (before, _) in sizes)
    return Geometry(axes, work.batch, *work.channels, work.groups)


class Backstride(Peer):
    """A plan where filters are packed beforehand, else the documented function; gradients as autograd calls them."""

    def __init__(self, threads: int, dtype: str) -> None:
        super().__init__(threads, dtype)
        backstride.set_num_threads(threads)

    def input(self, array: np.ndarray) -> np.ndarray:
        return array

    def plain(self, array: np.ndarray) -> np.ndarray:
        return array.astype(np.float64 if self.dtype == "float64" else np.float32, copy=False)

    plain_filter = plain

    def forward(self, work: Workload, x: np.ndarray, packed: bool) -> Make:
        sized = geometry(work)
        self.algorithm = self._kernel("output", sized, packed)
        if packed:
            return lambda filter: self._planned(work, x, filter)
        if work.groups > 1:  # which no documented function has
            return lambda filter: lambda: core.derivative("output", sized, x, filter)
        shape = sized.shape("output")
        return lambda filter: lambda: backstride.nn.conv_transpose(x, filter, shape, work.stride, work.padding)

    def gradients(self, work: Workload, x: np.ndarray, cotangent: np.ndarray) -> Make:
        sized = geometry(work)
        names = [self._kernel(wrt, sized) for wrt in ("output", "input", "filter")]
        self.algorithm = ", ".join(names if len(set(names)) > 1 else names[:1])
        return lambda filter: (
            lambda: (
                _ops.derivative("output", sized, x, filter),
                _ops.derivative("input", sized, filter, cotangent),
                _ops.derivative("filter", sized, x, cotangent),
            )
        )

    def release(self) -> None:
        super().release()
        backstride.release_memory()

    def peak(self) -> float:
        """float32 multiplications and additions per second, of the registers alone."""
        return _native.fma_peak()

    def bandwidth(self) -> float:
        """Bytes that all threads together read and write per second, in copies of arrays of `COPIED` bytes each."""
        with ThreadPoolExecutor(self.threads) as pool:
            pairs = list(
                pool.map(lambda _: (np.ones(COPIED, np.uint8), np.ones(COPIED, np.uint8)), range(self.threads))
            )
            began = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(*pair), pairs))
            return 2 * COPIED * self.threads / (time.perf_counter() - began)

    def _planned(self, work: Workload, x: np.ndarray, filter: np.ndarray) -> Run:
        plan = backstride.plan(filter, work.stride, work.padding, groups=work.groups)
        sized = plan._resolve(x.shape, None).plan
        assert sized is not None
        self.algorithm = sized.kernel
        return lambda: plan(x)

    def _kernel(self, wrt: Operand, sized: Geometry, packed: bool = False) -> str:
        return _plan.plan(wrt, sized, core.element(np.dtype(self.dtype)), _precision.current(), packed).kernel
