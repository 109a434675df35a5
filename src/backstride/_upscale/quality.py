# SPDX-License-Identifier: Apache-2.0
"""How close an enlargement comes to the truth, in luma `[height, width]` of 0..1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from skimage import metrics, transform

from backstride._upscale.cubic import Floats

WINDOW = 11  # pixels, each way, of which SSIM needs at least one in full


@dataclass(frozen=True)
class Quality:
    """PSNR in dB, infinite where nothing differs, and the mean SSIM."""

    psnr: float
    ssim: float


def quality(image: Floats, truth: Floats, border: int) -> Quality:
    """Of what is inside `border` pixels; SSIM has the settings of Wang et al., who defined it."""
    ssim = metrics.structural_similarity(
        _inside(truth, border),
        _inside(image, border),
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return Quality(psnr(image, truth, border), float(ssim))


def psnr(image: Floats, truth: Floats, border: int) -> float:
    """Of what is inside `border` pixels."""
    with np.errstate(divide="ignore"):
        return float(metrics.peak_signal_noise_ratio(_inside(truth, border), _inside(image, border), data_range=1))


def spline(small: Floats, size: tuple[int, ...]) -> Floats:
    """scikit-image's enlargement by cubic B-splines, a second baseline and a better one than bicubic."""
    zoomed: Floats = transform.resize(small, size, order=3, mode="edge", anti_aliasing=False)
    return zoomed


def _inside(image: Floats, border: int) -> Floats:
    return np.clip(image[border:-border, border:-border], 0, 1)
