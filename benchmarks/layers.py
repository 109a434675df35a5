# SPDX-License-Identifier: Apache-2.0
"""Known decoder layers: each result checked against float64, each speed as a share of the peak of the same run.

    python benchmarks/layers.py [part of a name ...]

The peak is that of float32 multiply-adds on all threads of BACKSTRIDE_NUM_THREADS, in the instruction set in use,
measured before each layer, since shared machines drift. GFLOP/s count the plain definition. Every call packs its
filter anew.
"""

from __future__ import annotations

import sys

import numpy as np
from rich.console import Console
from rich.table import Table

import backstride
from backstride import _native
from backstride._demo.measure import measured
from backstride._geometry import Layer

# name: batch, height, width, in channels, out channels, kernel, stride; padding SAME, output = input * stride
LAYERS = {
    "dense": (1, 64, 64, 256, 64, 4, 2),
    "DCGAN 1": (16, 4, 4, 1024, 512, 5, 2),
    "DCGAN 3": (16, 16, 16, 256, 128, 5, 2),
    "DCGAN 4": (16, 32, 32, 128, 3, 5, 2),
    "pix2pix 16": (1, 16, 16, 1024, 256, 4, 2),
    "U-Net 28": (1, 28, 28, 1024, 512, 2, 2),
    "U-Net 128": (1, 128, 128, 128, 64, 2, 2),
    "autoencoder": (32, 14, 14, 64, 32, 3, 2),
    "pose": (8, 16, 12, 256, 256, 4, 2),
    "FCN-8s": (1, 64, 64, 21, 21, 16, 8),
    "FSRCNN": (1, 170, 256, 56, 1, 9, 3),
    "Mask R-CNN": (100, 14, 14, 256, 256, 2, 2),
    "stride 1": (4, 64, 64, 64, 64, 3, 1),
}


def main(parts: list[str]) -> None:
    """Measures the layers whose name holds one of `parts`, or all."""
    backstride.show_config()
    table = Table("layer", "batch, input, filter, stride", "ms", "GFLOP/s", "of peak", "largest difference")
    random = np.random.default_rng(0)
    for name, (batch, height, width, channels, results, kernel, stride) in LAYERS.items():
        if parts and not any(part.lower() in name.lower() for part in parts):
            continue
        layer = Layer((kernel,) * 2, (stride,) * 2, (1, 1), crop=None)
        geometry = layer.resolve(batch, channels, results, (height, width), (height * stride, width * stride))
        value, filter = (random.standard_normal(geometry.shape(side), np.float32) for side in ("input", "filter"))
        row = measured(geometry, value, filter, _native.fma_peak())[1]
        table.add_row(
            name,
            f"{batch}, {height}x{width}x{channels}, {kernel}x{kernel}x{results}x{channels}, {stride}",
            f"{row.milliseconds:.3g}",
            f"{row.gflops:.0f}",
            f"{row.share_of_peak:.0%}",
            f"{row.largest_difference:.1e}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
