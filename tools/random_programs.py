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
    """Two to eight steps."""
    draw = Draw(seed)
    steps: list[Step] = []
    left = draw.between(2, 8)
    while left:
        steps.append(_step(draw, left, False))
        left -= _length(steps[-1])
    return steps


def _length(step: Step) -> int:
    return 1 + sum(map(_length, step.get("body", [])))


def _step(draw: Draw, left: int, initialized: bool) -> Step:
    """A step of at most `left`, with those in it. In an `initialized` scope, variables may have no own initializer."""
    if left > 1 and draw.chance(0.4):
        return _open(draw, left, initialized)
    if draw.chance(0.15):
        return {"get": _get(draw, initialized)}
    if draw.chance(0.05):
        return {"reuse_variables": {"of": {"opened": draw.between(0, 3)}}}
    if draw.chance(0.05):
        return {"list": draw.one([{"of": {"opened": draw.between(0, 3)}}, {"scope": draw.one(PATTERNS)}])}
    return {"layer": _layer(draw, initialized)}


def _open(draw: Draw, left: int, initialized: bool) -> Step:
    arguments: dict[str, Any] = {"name_or_scope": draw.one(SCOPES)}
    if draw.chance(0.25):
        arguments = {"name_or_scope": {"opened": draw.between(0, 3)}}
    elif draw.chance(0.2):
        arguments = {"name_or_scope": None, "default_name": draw.one(LAYERS[:-1])}
    elif draw.chance(0.05):
        arguments = {"name_or_scope": draw.one([5, 5, "a b", "_s"])}
    if draw.chance(0.35):
        arguments["reuse"] = draw.one([*REUSES, *REUSES, "yes"])
    if draw.chance(0.2):
        arguments["initializer"] = draw.one(INITIALIZERS)
    initialized = "initializer" in arguments or (initialized and not isinstance(arguments["name_or_scope"], dict))
    if draw.chance(0.2):
        arguments["regularizer"] = draw.one(REGULARIZERS)
    body: list[Step] = []
    left = draw.between(1, left - 1)
    while left:
        body.append(_step(draw, left, initialized))
        left -= _length(body[-1])
    return {"open": arguments, "body": body} | ({"through": True} if draw.chance(0.25) else {})


def _get(draw: Draw, initialized: bool) -> dict[str, Any]:
    name = draw.one(VARIABLES)
    arguments = {
        "name": name,
        "shape": [2] if name.endswith("bias") else [3, 3, 2, 1],
        "initializer": draw.one(INITIALIZERS) if not initialized or draw.chance(0.5) else None,
    }
    if draw.chance(0.1):
        arguments |= {"shape": None} | draw.one([{}, {"initializer": {"numpy": "float32", "value": [2.0, 3.0]}}])
    return arguments | _options(
        draw,
        0.15,
        dtype=["float32", "float64"],
        regularizer=REGULARIZERS,
        trainable=[True, False],
        constraint=CONSTRAINTS,
    )


def _layer(draw: Draw, initialized: bool) -> dict[str, Any]:
    usual = draw.chance(0.8)
    shape = [1, 2, 1, 1] if usual else [draw.between(0, 2), *(draw.between(0, 2) for _ in "hw"), draw.between(1, 2)]
    arguments = {
        "inputs": {"array": shape, "dtype": draw.one(DTYPES)},
        "filters": 2 if usual or draw.chance(0.7) else draw.one([1, 3, {"numpy": "int64", "value": 2}]),
        "kernel_size": 3 if usual or draw.chance(0.5) else draw.one([1, 2, [2, 1], {"tuple": [3, 3]}]),
        "kernel_initializer": draw.one(INITIALIZERS),
    }
    if draw.chance(0.5):
        arguments["name"] = {"opened": draw.between(0, 3)} if draw.chance(0.1) else draw.one(LAYERS)
    if initialized and not isinstance(arguments.get("name"), dict) and draw.chance(0.5):
        del arguments["kernel_initializer"]
    arguments |= _options(draw, 0.4, reuse=REUSES)
    arguments |= _options(
        draw,
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
    # A refused call may or may not have used up a default name, so it has a name of its own.
    return arguments | ({"name": "wrong"} | draw.one(WRONG) if draw.chance(0.08) else {})


def _options(draw: Draw, probability: float, **options: Any) -> dict[str, Any]:
    """Each argument with the given probability."""
    return {name: draw.one(values) for name, values in options.items() if draw.chance(probability)}
