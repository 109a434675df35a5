# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from workload import Workload

from peers import Make, Peer, Run, Unsupported
from peers.channels_first import filter_first, filter_last, first, last


class Torch(Peer):
    """Contiguous tensors, under `inference_mode`; gradients by autograd."""

    def __init__(self, threads: int, dtype: str) -> None:
        super().__init__(threads, dtype)
        torch.set_num_threads(threads)

    def form(self, rank: int) -> torch.memory_format:
        return torch.contiguous_format

    def input(self, array: np.ndarray) -> torch.Tensor:
        return self._tensor(first(array))

    def plain(self, array: torch.Tensor) -> np.ndarray:
        return last(self._numpy(array))

    def plain_filter(self, array: torch.Tensor) -> np.ndarray:
        return filter_last(self._numpy(array))

    def forward(self, work: Workload, x: torch.Tensor, packed: bool) -> Make:
        layer = self._layer(work)

        def make(filter: np.ndarray) -> Run:
            w = self._tensor(filter_first(filter))
            return torch.inference_mode()(lambda: layer(x, w))

        return make

    def gradients(self, work: Workload, x: torch.Tensor, cotangent: torch.Tensor) -> Make:
        layer = self._layer(work)
        x.requires_grad_()

        def make(filter: np.ndarray) -> Run:
            w = self._tensor(filter_first(filter)).requires_grad_()

            def run() -> Any:
                y = layer(x, w)
                return y, *torch.autograd.grad(y, (x, w), cotangent)

            return run

        return make

    def _layer(self, work: Workload) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        function = getattr(torch.nn.functional, f"conv_transpose{work.rank}d")
        before = [pair[0] for pair in work.crop]
        extra = [max(-after, 0) for _, after in work.crop]
        window = (..., *(slice(0, length) for length in work.output))  # an odd crop takes one more after than before

        def layer(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = function(
                x, w, stride=work.stride, padding=before, output_padding=extra, groups=work.groups
            )
            return y[window]

        return layer

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        bits = self.dtype == "bfloat16"  # which torch does not know of NumPy
        tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if bits else torch.from_numpy(array)
        return tensor.contiguous(memory_format=self.form(array.ndim - 2))

    def _numpy(self, tensor: torch.Tensor) -> np.ndarray:
        wide = torch.float64 if self.dtype == "float64" else torch.float32
        array: np.ndarray = tensor.detach().to(wide).numpy()
        return array


class TorchChannelsLast(Torch):
    def form(self, rank: int) -> torch.memory_format:
        if rank == 1:
            raise Unsupported("no channels_last form of 1-D tensors")
        return torch.channels_last if rank == 2 else torch.channels_last_3d
