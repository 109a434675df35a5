# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from workload import Workload

from peers import Make, Peer, Run, Unsupported


class TensorFlow(Peer):
    """A `tf.function` where the filter is known beforehand, else the operation itself."""

    def __init__(self, threads: int, dtype: str) -> None:
        super().__init__(threads, dtype)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)

    def input(self, array: np.ndarray) -> tf.Tensor:
        return tf.constant(array)

    def plain(self, array: tf.Tensor) -> np.ndarray:
        return array.numpy().astype(np.float64 if self.dtype == "float64" else np.float32, copy=False)

    def forward(self, work: Workload, x: tf.Tensor, packed: bool) -> Make:
        if work.groups > 1:
            raise Unsupported("no groups")
        function = {1: tf.nn.conv1d_transpose, 2: tf.nn.conv2d_transpose, 3: tf.nn.conv3d_transpose}[work.rank]
        shape = (work.batch, *work.output, work.channels[1])

        def layer(x: Any, w: Any) -> Any:
            return function(x, w, shape, work.stride, work.padding)

        def make(filter: np.ndarray) -> Run:
            w = tf.constant(filter)
            if not packed:
                return lambda: layer(x, w)
            call = tf.function(lambda x: layer(x, w), jit_compile=False)
            call(x)
            return lambda: call(x)

        return make
