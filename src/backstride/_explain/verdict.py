# SPDX-License-Identifier: Apache-2.0
"""Whether cells of a result sum equally many taps, and what is to be done about it, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Literal

from backstride._arguments import AXES
from backstride._explain.arithmetic import Along


@dataclass(frozen=True)
class Verdict:
    """On the checkerboard artifacts of a layer.

    Attributes:
        kind: 'one phase' where all strides are 1; 'even' where all cells inside sum equally many taps; 'uneven'; or
            'holes' where some sum none.
        fewest, most: how many taps cells inside sum.
        headline, meaning: what that is, and what it does to a picture.
        advice: what can be done, in sentences.
    """

    kind: Literal["one phase", "even", "uneven", "holes"]
    fewest: int
    most: int
    headline: str
    meaning: str
    advice: tuple[str, ...]


def verdict(axes: Sequence[Along]) -> Verdict:
    """The verdict on a layer of these axes."""
    fewest, most = (prod(getattr(axis, name) for axis in axes) for name in ("fewest", "most"))
    strides = _numbers([axis.stride for axis in axes])
    resize = f"Or resize by {strides} (nearest or bilinear), then convolve: there are no phases then."
    if strides == "1":
        headline = f"One phase: all cells inside sum the same {_taps(most)}."
        return Verdict("one phase", fewest, most, headline, "There is nothing to make a checkerboard of.", ())
    if fewest == most:
        headline = f"Even: all cells inside sum {_taps(most)}."
        meaning = (
            "No checkerboard is built in. Phases have weights of their own, so a trained filter can still make one."
        )
        return Verdict("even", fewest, most, headline, meaning, (*_weights(axes), resize))
    if fewest == 0:
        headline = f"Holes: some cells inside sum no tap, others up to {most}."
        meaning = "No weights can fill the holes; they hold the bias alone."
        return Verdict("holes", fewest, most, headline, meaning, (*_kernels(axes), resize))
    headline = f"Uneven: cells inside sum {fewest} to {most} taps by turns, like a checkerboard."
    meaning = "It shows in the result, unless the weights make up for it."
    return Verdict("uneven", fewest, most, headline, meaning, (*_kernels(axes), *_weights(axes), resize))


def _kernels(axes: Sequence[Along]) -> tuple[str, ...]:
    """Which kernels and dilations would make the counts equal."""
    steps = [
        f"Take a dilation without a factor in common with the stride along the {name}; {axis.dilation} and "
        f"{axis.stride} have one."
        for name, axis in zip(AXES[len(axes)], axes, strict=True)
        if gcd(axis.stride, axis.dilation) > 1
    ]
    # The multiples of the strides next to what there is.
    below = [axis.kernel // axis.stride * axis.stride for axis in axes]
    above = [-(-axis.kernel // axis.stride) * axis.stride for axis in axes]
    if below != above:
        choices = " or ".join(_numbers(kernel) for kernel in (below, above) if min(kernel) > 0)
        steps.append(f"Take a kernel divisible by the stride, {choices}: the counts are then equal.")
    return tuple(steps)


def _weights(axes: Sequence[Along]) -> tuple[str, ...]:
    """Which initial weights begin without a pattern, whatever the counts."""
    if any(axis.dilation > 1 or axis.kernel < axis.stride for axis in axes):
        return ()
    strides = [axis.stride for axis in axes]
    icnr = f"icnr_initializer({strides[0] if len(set(strides)) == 1 else tuple(strides)})"
    bilinear = [2 * stride - stride % 2 for stride in strides]
    fits = bilinear == [axis.kernel for axis in axes]
    where = "" if fits else f" (with kernel {_numbers(bilinear)})"
    return (f"Begin training with backstride.{icnr} or backstride.bilinear_initializer(){where}: no pattern at first.",)


def _numbers(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))


def _taps(count: int) -> str:
    return f"{count} tap{'s' if count != 1 else ''}"
