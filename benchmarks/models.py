# SPDX-License-Identifier: Apache-2.0
"""Whole PyTorch models before and after `backstride.torch.accelerate`, and what a call of a tiny layer costs.

    make bench-models ARGS="--only dcgan hifi"

The models are those of examples/torch_generators.py, with random weights, in inference, float32. The two forms of a
model take turns, call by call, and their results are compared first. A ratio is PyTorch's time over the one after
`accelerate`: of the whole model, and of each transposed convolution in it by itself, with the input that it gets.
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


def ratio(theirs: Callable[[], Any], ours: Callable[[], Any], calls: int = 1) -> float:
    """The median of the ratios of calls that follow each other."""
    found: list[float] = []
    begin = perf_counter()
    while len(found) < CALLS or perf_counter() - begin < SECONDS:
        times = []
        for call in (theirs, ours):
            start = perf_counter()
            for _ in range(calls):
                call()
            times.append(perf_counter() - start)
        found.append(times[0] / times[1])
    return median(found)


def check(got: torch.Tensor, want: torch.Tensor) -> None:
    error = float((got - want).abs().max() / want.abs().max())
    if not error < BOUND:
        raise SystemExit(f"the results differ by {error:.1e} of the largest number")


def tiny() -> None:
    """A layer whose work takes almost nothing."""
    theirs, ours = (of.ConvTranspose2d(8, 8, 4, stride=2, padding=1).eval() for of in (nn, backstride.torch))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 8, 4, 4)
    check(ours(x), theirs(x))
    for call in (theirs, ours):
        call(x)
    print(f"4x4x8, one call: {ratio(lambda: theirs(x), lambda: ours(x), calls=100):.2f}")


def whole(name: str, model: nn.Module, example: torch.Tensor) -> None:
    """A model, and the layers of it that were replaced."""
    before, after = model, copy.deepcopy(model)
    done = backstride.torch.accelerate(after, example)
    check(after(example), before(example))
    print(f"{name}: {ratio(lambda: before(example), lambda: after(example)):.2f}")
    inputs: dict[str, tuple[Any, ...]] = {}
    for layer in done.replaced:
        keep = after.get_submodule(layer).register_forward_pre_hook(
            lambda _, args, layer=layer: inputs.setdefault(layer, args) and None
        )
        after(example)
        keep.remove()
    for layer in done.replaced:
        theirs, ours, args = before.get_submodule(layer), after.get_submodule(layer), inputs[layer]
        shape = "x".join(map(str, args[0].shape))
        print(f"    {layer} of {shape}: {ratio(lambda: theirs(*args), lambda: ours(*args)):.2f}")  # noqa: B023
    for layer, reason in done.left.items():
        print(f"    {layer}: left, {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], metavar="PART", help="models whose names hold one of these")
    parser.add_argument("--threads", type=int, default=backstride.get_num_threads())
    options = parser.parse_args()
    backstride.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"ratios, float32, {options.threads} threads, torch {torch.__version__}")
    with torch.inference_mode():
        tiny()
        for name, model, example in models():
            if any(part.lower() in name.lower() for part in options.only):
                whole(name, model, example)


if __name__ == "__main__":
    main()
