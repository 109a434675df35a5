# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import onnxruntime as ort
from workload import Workload

from peers import Make, Peer, Run
from peers.channels_first import filter_first, first, last
from peers.onnx_model import onnx_model


class OnnxRuntime(Peer):
    """A session of one layer, whose filter is a constant where it is known beforehand."""

    def input(self, array: np.ndarray) -> np.ndarray:
        return first(array)

    def plain(self, array: np.ndarray) -> np.ndarray:
        return last(array.astype(np.float64 if self.dtype == "float64" else np.float32, copy=False))

    def forward(self, work: Workload, x: np.ndarray, packed: bool) -> Make:
        if not packed:
            shared = self._session(work, None)
            return lambda filter: self._run(shared, {"x": x, "w": filter_first(filter)})
        return lambda filter: self._run(self._session(work, filter), {"x": x})

    def _session(self, work: Workload, filter: np.ndarray | None) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        return ort.InferenceSession(onnx_model(work, self.dtype, filter), options, ["CPUExecutionProvider"])

    def _run(self, session: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> Run:
        return lambda: session.run(None, feeds)[0]
