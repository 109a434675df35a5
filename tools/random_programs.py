# SPDX-License-Identifier: Apache-2.0
"""Random layer programs (see tests/programs.py): few names, so that they collide, and few sizes, which differ."""

from __future__ import annotations

from typing import Any

from random_calls import Draw

Step = dict[str, Any]

LAYERS = ["conv2d_transpose", "conv2d_transpose_1", "d", "d", "d", "s", "d/e", ""]
SCOPES = ["s", "s", "d", "conv2d_transpose", "", "s/t", "conv2d_transpose_1"]
VARIABLES = ["kernel", "bias", "d/kernel", "conv2d_transpose/kernel", "conv2d_transpose_1/bias", "w"]
PATTERNS = ["s", "d/", "conv2d_transpose", ".*kernel", "bias", None]
REUSES = [None, False, True, True, "@AUTO_REUSE", "@AUTO_REUSE"]
DTYPES = ["float32"] * 12 + ["float64", "float16"]
INITIALIZERS = ["@rising", "@shifted"]
REGULARIZERS = ["@sum", "@twice the sum", "@squares", "@nothing", "@l1", "@l2", None]
CONSTRAINTS = ["@non_neg", "@as it is", None]
ACTIVATIONS = ["@relu", "@negative", "relu", "linear", None]
WRONG: list[dict[str, Any]] = [
    *({"filters": value} for value in (0, -1, None, "two", 2.0)),
    *({name: value} for name in ("kernel_size", "strides") for value in (0, [1], [1, 2, 3], None, [1, -1], [1, "1"])),
    {"kernel_size": 2.0},
    {"strides": 1.0},
    *({"padding": value} for value in ("full", "causal", None)),
    *({"data_format": value} for value in ("NHWC", "")),
    {"activation": "nope"},
    {"reuse": "yes"},
    {"name": 5},
    {"name": "a b"},
    {"name": "_d"},
    {"inputs": None},
    {"inputs": {"array": [1, 2, 1], "dtype": "float32"}},
    {"bias_initializer": None},
    {"activity_regularizer": "@nothing"},
    {"kernel_regularizer": 5},
    {"bias_constraint": 5},
]


def draw_program(seed: list[int]) -> list[Step]:
    """Two to eight steps, in some programs after the making of layer objects."""
    return _Author(Draw(seed)).program()


class _Author:
    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.made = draw.between(1, 2) if draw.chance(0.25) else 0

    def program(self) -> list[Step]:
        return [self.make() for _ in range(self.made)] + self.body(self.draw.between(2, 8), False)

    def body(self, left: int, initialized: bool) -> list[Step]:
        """`left` steps, with those in them. In an `initialized` scope, variables may have no own initializer."""
        steps: list[Step] = []
        while left:
            steps.append(self.step(left, initialized))
            left -= _length(steps[-1])
        return steps

    def step(self, left: int, initialized: bool) -> Step:
        draw = self.draw
        if left > 1 and draw.chance(0.4):
            return self.open(left, initialized)
        if self.made and draw.chance(0.4):
            return {"call": {"made": draw.between(0, self.made - 1), "inputs": self.inputs(draw.chance(0.9))}}
        if draw.chance(0.15):
            return {"get": self.get(initialized)}
        if draw.chance(0.05):
            return {"reuse_variables": {"of": self.opened()}}
        if draw.chance(0.05):
            return {"list": draw.one([{"of": self.opened()}, {"scope": draw.one(PATTERNS)}])}
        return {"layer": self.layer(initialized)}

    def opened(self) -> dict[str, int]:
        return {"opened": self.draw.between(0, 3)}

    def open(self, left: int, initialized: bool) -> Step:
        draw = self.draw
        arguments: dict[str, Any] = {"name_or_scope": draw.one(SCOPES)}
        if draw.chance(0.25):
            arguments = {"name_or_scope": self.opened()}
        elif draw.chance(0.2):
            arguments = {"name_or_scope": None, "default_name": draw.one(LAYERS[:-1])}
        elif draw.chance(0.05):
            arguments = {"name_or_scope": draw.one([None, 5, "a b", "_s"])}
        if draw.chance(0.35):
            arguments["reuse"] = draw.one([*REUSES, *REUSES, "yes"])
        if draw.chance(0.2):
            arguments["initializer"] = draw.one(INITIALIZERS)
        if draw.chance(0.2):
            arguments["regularizer"] = draw.one(REGULARIZERS)
        jumps = isinstance(arguments["name_or_scope"], dict)
        body = self.body(draw.between(1, left - 1), "initializer" in arguments or (initialized and not jumps))
        return {"open": arguments, "body": body} | ({"through": True} if draw.chance(0.25) else {})

    def get(self, initialized: bool) -> dict[str, Any]:
        draw = self.draw
        name = draw.one(VARIABLES)
        arguments = {
            "name": name,
            "shape": [2] if name.endswith("bias") else [3, 3, 2, 1],
            "initializer": draw.one(INITIALIZERS) if not initialized or draw.chance(0.5) else None,
        }
        if draw.chance(0.1):
            arguments |= {"shape": None} | draw.one([{}, {"initializer": {"numpy": "float32", "value": [2.0, 3.0]}}])
        return arguments | self.options(
            0.15,
            dtype=["float32", "float64"],
            regularizer=REGULARIZERS,
            trainable=[True, False],
            constraint=CONSTRAINTS,
        )

    def make(self) -> Step:
        arguments = self.layer(False)
        unwanted = {"inputs", "reuse"} | ({"name"} if isinstance(arguments.get("name"), dict) else set())
        return {"make": {name: value for name, value in arguments.items() if name not in unwanted}}

    def layer(self, initialized: bool) -> dict[str, Any]:
        draw = self.draw
        usual = draw.chance(0.8)
        arguments = {
            "inputs": self.inputs(usual),
            "filters": 2 if usual or draw.chance(0.7) else draw.one([1, 3, {"numpy": "int64", "value": 2}]),
            "kernel_size": 3 if usual or draw.chance(0.5) else draw.one([1, 2, [2, 1], {"tuple": [3, 3]}]),
            "kernel_initializer": draw.one(INITIALIZERS),
        }
        if draw.chance(0.5):
            arguments["name"] = self.opened() if draw.chance(0.1) else draw.one(LAYERS)
        if initialized and not isinstance(arguments.get("name"), dict) and draw.chance(0.5):
            del arguments["kernel_initializer"]
        arguments |= self.options(0.4, reuse=REUSES)
        arguments |= self.options(
            0.15,
            strides=[2, [1, 3], {"tuple": [2, 1]}, {"numpy": "int32", "value": [2, 2]}],
            padding=["same", "SAME", "Valid"],
            data_format=["channels_first", "Channels_First", "channels_last", None],
            activation=ACTIVATIONS,
            use_bias=[True, False, False],
            bias_initializer=INITIALIZERS,
            kernel_regularizer=REGULARIZERS,
            bias_regularizer=REGULARIZERS,
            activity_regularizer=[name for name in REGULARIZERS if name != "@nothing"],
            kernel_constraint=CONSTRAINTS,
            bias_constraint=CONSTRAINTS,
            trainable=[True, False],
        )
        return arguments | (draw.one(WRONG) if draw.chance(0.08) else {})

    def inputs(self, usual: bool) -> dict[str, Any]:
        least, most = (1, 1) if usual else (0, 2)
        batch, height, width = (self.draw.between(least, most) for _ in "nhw")
        shape = [batch, height, width, self.draw.between(1, most)]
        return {"array": shape, "dtype": self.draw.one(DTYPES)}

    def options(self, probability: float, **options: Any) -> dict[str, Any]:
        """Each argument with the given probability."""
        return {name: self.draw.one(values) for name, values in options.items() if self.draw.chance(probability)}


def _length(step: Step) -> int:
    return 1 + sum(map(_length, step.get("body", [])))
