# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import openvino as ov
from workload import Workload

from peers import Make, Peer, Run, Unsupported
from peers.channels_first import filter_first, first, last
from peers.onnx_model import onnx_model

PRECISION = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


class OpenVino(Peer):
    """A model of one layer, compiled for latency, whose filter is a constant where it is known beforehand."""

    def input(self, array: np.ndarray) -> Any:
        return self._feed(first(array))

    def plain(self, array: np.ndarray) -> np.ndarray:
        if self.dtype == "bfloat16":
            array = array.view(ml_dtypes.bfloat16)
        return last(array.astype(np.float32, copy=False))

    def forward(self, work: Workload, x: Any, packed: bool) -> Make:
        if self.dtype not in PRECISION:
            raise Unsupported(f"computes {self.dtype} in float32")
        if not packed:
            shared = self._compiled(work, None)
            return lambda filter: self._run(shared, [x, self._feed(filter_first(filter))])
        return lambda filter: self._run(self._compiled(work, filter), [x])

    def _compiled(self, work: Workload, filter: np.ndarray | None) -> ov.InferRequest:
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": PRECISION[self.dtype],
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = ov.Core()
        model = core.read_model(onnx_model(work, self.dtype, filter))
        return core.compile_model(model, "CPU", settings).create_infer_request()

    def _feed(self, array: np.ndarray) -> Any:
        """bfloat16, which OpenVINO does not know of NumPy, as its bits."""
        if self.dtype != "bfloat16":
            return array
        return ov.Tensor(array.view(np.uint16), array.shape, ov.Type.bf16)

    def _run(self, request: ov.InferRequest, feeds: list[Any]) -> Run:
        return lambda: request.infer(feeds, share_inputs=True, share_outputs=True)[0]
