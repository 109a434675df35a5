# SPDX-License-Identifier: Apache-2.0
"""Random layers."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from backstride.convert import ConvTranspose


@st.composite
def layers(draw: Any, rank: int | None = None, groups: bool = True, dilations: bool = True) -> ConvTranspose:
    """Layers that crop as frameworks do by name, as they do by numbers, and as none does; results are not empty."""
    rank = draw(st.integers(1, 3)) if rank is None else rank
    uniform = draw(st.booleans())

    def per_axis(strategy: Any) -> tuple[Any, ...]:
        return (draw(strategy),) * rank if uniform else tuple(draw(strategy) for _ in range(rank))

    kernel, stride = per_axis(st.integers(1, 5)), per_axis(st.integers(1, 4))
    dilation = per_axis(st.integers(1, 3)) if dilations and draw(st.booleans()) else (1,) * rank
    extents = [(taps - 1) * step + 1 for taps, step in zip(kernel, dilation, strict=True)]
    how = draw(st.sampled_from(["same", "valid", "numbers", "any"]))
    crop = []
    for extent, step in zip(extents, stride, strict=True):
        total = extent - step
        if how == "same":
            crop.append((max(total, 0) // 2, total - max(total, 0) // 2))
        elif how == "valid":
            crop.append((0, min(total, 0)))
        else:
            lowest = 0 if how == "numbers" else -3
            before = draw(st.integers(lowest, extent - 1))
            # Of three cells of input, one of the result is left.
            crop.append(
                (before, draw(st.integers(lowest, max(min(extent - 1, extent + 2 * step - 1 - before), lowest))))
            )
    share = draw(st.integers(1, 3)) if groups else 1
    return ConvTranspose(
        kernel,
        stride,
        dilation,
        (crop[0],) * rank if uniform else tuple(crop),
        share * draw(st.integers(1, 3)),
        share * draw(st.integers(1, 3)),
        share,
        draw(st.booleans()),
        draw(st.booleans()),
    )
