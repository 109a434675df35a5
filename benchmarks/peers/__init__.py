# SPDX-License-Identifier: Apache-2.0
"""The libraries that are compared. A new one is one file here and its line in `PEERS`."""

from __future__ import annotations

import gc
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from workload import Workload

Array = Any
Run = Callable[[], Any]
Make = Callable[[np.ndarray], Run]


class Unsupported(Exception):
    """The library has no such layer."""


class Peer(ABC):
    """A library: how it stores arrays, and what one timed call of a layer is.

    `make(filter)` does what may be done before a call, with a filter in the benchmark's own layout, and returns the
    call. Whatever compiles or traces does it before a call is timed.
    """

    algorithm = ""  # of the layer asked for last, where the library tells

    def __init__(self, threads: int, dtype: str) -> None:
        self.threads, self.dtype = threads, dtype

    @abstractmethod
    def input(self, array: np.ndarray) -> Array:
        """An input or a cotangent as the library wants it."""

    @abstractmethod
    def forward(self, work: Workload, x: Array, packed: bool) -> Make:
        """The layer. `packed`: the library may do with the filter what it does for inference; otherwise it is new."""

    def gradients(self, work: Workload, x: Array, cotangent: Array) -> Make:
        """The layer, its input gradient and its filter gradient, which a call returns in this order."""
        raise Unsupported("not compared")

    @abstractmethod
    def plain(self, array: Array) -> np.ndarray:
        """A result, or an input gradient, with channels last; float32 or float64."""

    def plain_filter(self, array: Array) -> np.ndarray:
        """A filter gradient as `[*kernel, out_channels / groups, in_channels]`; float32 or float64."""
        raise Unsupported("not compared")

    def release(self) -> None:
        """Gives back memory that is not needed."""
        gc.collect()


class Home(NamedTuple):
    """Where a peer is written, what it is called and what package it is in.

    `hoards`: it keeps freed memory for itself, so that what a layer takes is only seen in a new process.
    `host`: of this package within another library, the peer that is this library by itself.
    """

    module: str
    kind: str
    label: str
    package: str
    hoards: bool = False
    host: str = ""


PEERS = {
    "backstride": Home("backstride", "Backstride", "backstride", "backstride"),
    "torch": Home("torch", "Torch", "PyTorch", "torch"),
    "torch_channels_last": Home("torch", "TorchChannelsLast", "PyTorch, channels last", "torch"),
    "tensorflow": Home("tensorflow", "TensorFlow", "TensorFlow", "tensorflow", hoards=True),
    "jax": Home("jax", "Jax", "JAX", "jax", hoards=True),
    "backstride_jax": Home("jax", "BackstrideOnJax", "backstride in JAX", "backstride", hoards=True, host="jax"),
    "onnxruntime": Home("onnxruntime", "OnnxRuntime", "ONNX Runtime", "onnxruntime"),
    "openvino": Home("openvino", "OpenVino", "OpenVINO", "openvino"),
}
WITH_GRADIENTS = ("backstride", "torch", "torch_channels_last", "jax", "backstride_jax")


def peer(name: str, threads: int, dtype: str) -> Peer:
    """Imports one library and no other."""
    home = PEERS[name]
    found: Peer = getattr(importlib.import_module(f"peers.{home.module}"), home.kind)(threads, dtype)
    return found
