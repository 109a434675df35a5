# SPDX-License-Identifier: Apache-2.0
"""Whole PyTorch models before and after `backstride.torch.accelerate`, and what a call of a tiny layer costs.

    make bench-models ARGS="--only dcgan hifi"

The models are those of examples/torch_generators.py, with random weights, in inference, float32. The two forms of a
model take turns, call by call, and their results are compared first. A ratio is PyTorch's time over the one after
`accelerate`, the median of pairs of calls: of the whole model, and of each transposed convolution within these calls.
Milliseconds are medians before and after.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn

import backstride
import backstride.torch

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from torch_generators import models

SECONDS = 5
CALLS = 5
# Rounding errors, which grow from layer to layer, relative to the largest number of a result.
BOUND = 1e-4


def times(theirs: Callable[[], Any], ours: Callable[[], Any], calls: int = 1) -> tuple[list[float], list[float]]:
    """The seconds of so many calls of each, in turns."""
    found: tuple[list[float], list[float]] = [], []
    begin = perf_counter()
    while len(found[0]) < CALLS or perf_counter() - begin < SECONDS:
        for call, seconds in zip((theirs, ours), found, strict=True):
            start = perf_counter()
            for _ in range(calls):
                call()
            seconds.append(perf_counter() - start)
    return found


def within(layer: nn.Module) -> list[float]:
    """The seconds of each call of a layer from now on."""
    seconds: list[float] = []

    def end(*_: Any) -> None:
        seconds[-1] += perf_counter()

    layer.register_forward_pre_hook(lambda *_: seconds.append(-perf_counter()))
    layer.register_forward_hook(end)
    return seconds


def row(name: str, theirs: list[float], ours: list[float], unit: str = "ms", per_second: float = 1e3) -> str:
    ratio = median(one / other for one, other in zip(theirs, ours, strict=True))
    return f"{name:24} {ratio:6.2f}  {median(theirs) * per_second:8.2f} {median(ours) * per_second:8.2f} {unit}"


def check(got: torch.Tensor, want: torch.Tensor) -> None:
    error = float((got - want).abs().max() / want.abs().max())
    if not error < BOUND:
        raise SystemExit(f"the results differ by {error:.1e} of the largest number")


def tiny() -> None:
    """A layer whose work takes almost nothing."""
    theirs, ours = (of.ConvTranspose2d(8, 8, 4, stride=2, padding=1).eval() for of in (nn, backstride.torch))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 8, 4, 4)
    with torch.inference_mode():
        check(ours(x), theirs(x))
        print(row("4x4x8, one call", *times(lambda: theirs(x), lambda: ours(x), calls=100), "us", 1e4))


def whole(name: str, model: nn.Module, example: torch.Tensor) -> None:
    """A model, and its transposed convolutions."""
    before, after = model, copy.deepcopy(model)
    with torch.inference_mode():
        done = backstride.torch.accelerate(after, example)
        check(after(example), before(example))
        layers = {
            layer: [within(each.get_submodule(layer)) for each in (before, after)]
            for layer in (*done.replaced, *done.left)
        }
        print(row(name, *times(lambda: before(example), lambda: after(example))))
    for layer, seconds in layers.items():
        print(row(f"    {layer}", *seconds), f" left: {done.left[layer]}" if layer in done.left else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], metavar="PART", help="models whose names hold one of these")
    parser.add_argument("--threads", type=int, default=backstride.get_num_threads())
    options = parser.parse_args()
    backstride.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"before over after, float32, {options.threads} threads, torch {torch.__version__}")
    tiny()
    for name, model, example in models():
        if any(part.lower() in name.lower() for part in options.only):
            whole(name, model, example)


if __name__ == "__main__":
    main()
