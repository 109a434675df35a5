# SPDX-License-Identifier: Apache-2.0
"""Training: batches, a loss, and the Adam of the autograd package on the variables of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import cos, pi
from typing import Any, TypeVar

import autograd.numpy as np
from autograd import value_and_grad
from autograd.misc import flatten
from autograd.misc.optimizers import adam

import backstride
from backstride._upscale.photographs import Batch

PEAK_RATE = 2e-3
WARM_UP = 100  # steps

Values = dict[str, Any]
After = Callable[[float], None]
Item = TypeVar("Item")


def train(
    store: backstride.VariableStore, network: Callable[[Any], Any], batches: Iterator[Batch], steps: int, after: After
) -> None:
    """Trains the network to find what is missing in each batch; `after(loss)` is called in each step."""

    def loss(values: Values, batch: Batch) -> Any:
        run = store.run(network, batch.small, values=values)
        return charbonnier(run.result - batch.missing) + sum(run.losses)

    minimize(loss, store, batches, rates(steps), after)


def minimize(
    loss: Callable[[Values, Item], Any],
    store: backstride.VariableStore,
    batches: Iterator[Item],
    rates: Sequence[float],
    after: After,
) -> None:
    """As many steps of Adam as there are rates, on the trainable variables.

    What Adam makes of them goes through the store, which rounds to their dtypes and applies their constraints, and
    Adam goes on from there: its vector and the variables hold the same in each step.
    """
    vector, unflatten = flatten(store.trainable())
    rate = np.zeros(())

    def slope(vector: Any, step: int) -> Any:
        store.update(unflatten(vector))
        vector[...] = flatten(store.trainable())[0]  # Adam's own, as `rate` is, which it reads in each step
        rate[...] = rates[step]
        found, slopes = value_and_grad(loss)(store.trainable(), next(batches))
        after(float(found))
        return flatten(slopes)[0]

    vector = adam(slope, vector.astype(np.float64), num_iters=len(rates), step_size=rate)
    store.update(unflatten(vector))


def charbonnier(difference: Any) -> Any:
    """The mean of an absolute value that is smooth at 0."""
    return np.mean(np.sqrt(difference * difference + 1e-6))


def rates(steps: int) -> list[float]:
    """Half a cosine down to 0, with a straight start."""
    return [PEAK_RATE * min((step + 1) / WARM_UP, 1) * (1 + cos(pi * step / steps)) / 2 for step in range(steps)]
