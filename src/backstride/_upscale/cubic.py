# SPDX-License-Identifier: Apache-2.0
"""Bicubic enlargement, which is a transposed convolution: each pixel stamps its cubic around its centre."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backstride import nn

Floats = NDArray[np.float32]

REACH = 2  # pixels of the small image, to either side

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of R'G'B', BT.601


def enlarged(images: Floats, scale: int) -> Floats:
    """`[batch, height, width, channels]` to `scale` times the height and width; beyond the border its pixels go on.

    Any part of an image, with `REACH` pixels around it, becomes the same bits as within the whole.
    """
    batch, height, width, channels = images.shape
    planes = np.moveaxis(images, 3, 1).reshape(batch * channels, height, width, 1)
    planes = np.pad(planes, [(0, 0), (REACH, REACH), (REACH, REACH), (0, 0)], mode="edge")
    stamp = _stamp(scale)
    cut = REACH * scale + (len(stamp) - scale) // 2
    padding = [[0, 0], [cut, cut], [cut, cut], [0, 0]]
    size = (height * scale, width * scale)
    large = nn.conv2d_transpose(planes, np.outer(stamp, stamp)[..., None, None], size, scale, padding)
    return np.moveaxis(large.reshape(batch, channels, *size), 1, 3)


def luma(images: Floats) -> Floats:
    """The one channel `[..., 1]` of grey images as it is, of RGB images their luma."""
    return images if images.shape[-1] == 1 else np.sum(images * LUMA, axis=-1, keepdims=True)


def _stamp(scale: int) -> Floats:
    """Keys's cubic convolution kernel with a = -1/2, at the centres of the enlarged pixels around a pixel's own."""
    taps = 2 * REACH * scale - scale % 2
    x = np.abs(np.arange(taps) - (taps - 1) / 2) / scale
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    stamp: Floats = np.where(x < 1, near, far).astype(np.float32)
    return stamp
