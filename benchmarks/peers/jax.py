# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from workload import Workload

import backstride
from backstride import _ops
from peers import Array, Make, Peer, Run
from peers.backstride import geometry

Layer = Callable[[Array, Array], Array]


class Jax(Peer):
    """Jitted; the filter is a constant of the compiled function where it is known beforehand."""

    def __init__(self, threads: int, dtype: str) -> None:
        super().__init__(threads, dtype)  # how many threads there are, JAX reads from the environment
        jax.config.update("jax_enable_x64", dtype == "float64")

    def input(self, array: np.ndarray) -> Array:
        return jnp.asarray(array)

    def plain(self, array: Array) -> np.ndarray:
        return np.asarray(array).astype(np.float64 if self.dtype == "float64" else np.float32, copy=False)

    plain_filter = plain

    def forward(self, work: Workload, x: Array, packed: bool) -> Make:
        layer = self.layer(work)
        if not packed:
            return self._called(jax.jit(layer), work, x)

        def make(filter: np.ndarray) -> Run:
            w = jnp.asarray(filter)
            call = jax.jit(lambda x: layer(x, w))
            jax.block_until_ready(call(x))
            return lambda: jax.block_until_ready(call(x))

        return make

    def gradients(self, work: Workload, x: Array, cotangent: Array) -> Make:
        layer = self.layer(work)

        def all_three(x: Array, w: Array, cotangent: Array) -> tuple[Array, Array, Array]:
            y, pull = jax.vjp(layer, x, w)
            return y, *pull(cotangent)

        return self._called(jax.jit(all_three), work, x, cotangent)

    def layer(self, work: Workload) -> Layer:
        """The layer as a function of input and filter; here by JAX's own convolution."""
        return _by_lax(work)

    def _called(self, call: Callable[..., Any], work: Workload, x: Array, *more: Array) -> Make:
        jax.block_until_ready(call(x, jnp.zeros(work.filter, x.dtype), *more))

        def make(filter: np.ndarray) -> Run:
            w = jnp.asarray(filter)
            return lambda: jax.block_until_ready(call(x, w, *more))

        return make


class BackstrideOnJax(Jax):
    """This package's kernels, called by XLA."""

    def __init__(self, threads: int, dtype: str) -> None:
        super().__init__(threads, dtype)
        backstride.set_num_threads(threads)

    def layer(self, work: Workload) -> Layer:
        sized = geometry(work)
        return lambda x, w: _ops.derivative("output", sized, x, w)


def _by_lax(work: Workload) -> Layer:
    names = "DHW"[3 - work.rank :]
    layout = (f"N{names}C", f"{names}OI", f"N{names}C")
    pads = [(k - 1 - a, k - 1 - b) for k, (a, b) in zip(work.kernel, work.crop, strict=True)]
    axes = tuple(range(work.rank))

    def layer(x: Array, w: Array) -> Array:
        if work.groups > 1:  # JAX wants all output channels along one axis, a group's input channels along the other
            *kernel, out, _ = w.shape
            w = w.reshape(*kernel, out, work.groups, -1)
            w = jnp.moveaxis(w, -2, -3).reshape(*kernel, out * work.groups, -1)
        return jax.lax.conv_general_dilated(
            x,
            jnp.flip(w, axes),
            (1,) * work.rank,
            pads,
            lhs_dilation=work.stride,
            dimension_numbers=layout,
            feature_group_count=work.groups,
        )

    return layer
