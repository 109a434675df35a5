# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's answers to layer programs (tests/programs.py), and where backstride means to answer otherwise."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import plain_kernels
from programs import Outcome, Program, World, run

tf = plain_kernels.tf
tf.get_logger().setLevel("ERROR")
warnings.filterwarnings("ignore", message=".*is deprecated")
v1 = tf.compat.v1


def _read(tensors: Sequence[Any]) -> Sequence[Any]:
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        return session.run(list(tensors))


WORLD = World(
    api=v1,
    keras=v1.keras,
    new=lambda: tf.Graph().as_default(),
    array=tf.constant,
    sum=tf.reduce_sum,
    read=_read,
)

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """A call that backstride means to answer otherwise, and the call to which TensorFlow gives that answer."""

    reason: str
    applies: Callable[[Arguments], bool]
    instead: Arguments


DIFFERENCES = [
    Difference(
        "no bias initializer, no bias, as the page says; TensorFlow takes the default initializer",
        lambda call: call.get("bias_initializer", "") is None,
        {"use_bias": False, "bias_initializer": "@rising"},
    ),
    Difference(
        "a float or a string is no size: TypeError; TensorFlow truncates filters, and raises ValueError for the others",
        lambda call: any(isinstance(call.get(name), float | str) for name in ("filters", "kernel_size", "strides")),
        {"filters": "two"},
    ),
    Difference(
        "filters=None is refused where it is given; TensorFlow's layer object refuses it at the first call",
        lambda call: call["filters"] is None,
        {"filters": 0},
    ),
    Difference(
        "so is a name of a wrong type",
        lambda call: isinstance(call.get("name"), int),
        {"filters": "two"},
    ),
    Difference(
        "padding=None is a wrong value: ValueError; TensorFlow raises AttributeError",
        lambda call: call.get("padding", "") is None,
        {"padding": "full"},
    ),
]


def answer(program: Program) -> Outcome:
    """What backstride should make of the program, by TensorFlow."""
    return run(_replaced(program), WORLD)


def _replaced(program: Program) -> Program:
    return [
        step
        | ({"body": _replaced(step["body"])} if "body" in step else {})
        | {kind: _replaced_call(step[kind]) for kind in ("layer", "make") if kind in step}
        for step in program
    ]


def _replaced_call(call: Arguments) -> Arguments:
    for difference in DIFFERENCES:
        if difference.applies(call):
            call = call | difference.instead
    return call
