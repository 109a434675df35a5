# SPDX-License-Identifier: Apache-2.0
"""Record what TensorFlow's layers answer into tests/golden/layers.json.gz. Run where requirements/tf.txt is installed.

`programs` are layer programs (see tests/programs.py) by name, each with its outcome; the other lists hold values of
activations, regularizers and constraints, and statistics of initializers.
"""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import plain_layers as tensorflow  # noqa: E402  (the import of TensorFlow itself, settings first)
from programs import Program, as_json, integers, statistics  # noqa: E402
from random_programs import draw_program  # noqa: E402

RANDOM = 60
AUTO = "@AUTO_REUSE"
Step = dict[str, Any]


def image(*shape: int, dtype: str = "float32") -> Step:
    return {"array": list(shape), "dtype": dtype}


def layer(**arguments: Any) -> Step:
    usual = {"inputs": image(1, 2, 1, 1), "filters": 2, "kernel_size": 3, "kernel_initializer": "@rising"}
    return {"layer": usual | arguments}


def make(**arguments: Any) -> Step:
    return {"make": {"filters": 2, "kernel_size": 3, "kernel_initializer": "@rising"} | arguments}


def call(made: int, inputs: Step | None = None) -> Step:
    return {"call": {"made": made, "inputs": inputs or image(1, 2, 1, 1)}}


def get(name: str, *shape: int, **arguments: Any) -> Step:
    return {"get": {"name": name, "shape": list(shape), "initializer": "@shifted"} | arguments}


def scope(*body: Step, name: Any = "s", **arguments: Any) -> Step:
    return {"open": {"name_or_scope": name} | arguments, "body": list(body)}


def numpy(dtype: str, value: Any) -> Step:
    return {"numpy": dtype, "value": value}


# 6.1: each argument's accepted values, then its refused ones.
ARGUMENTS: dict[str, tuple[list[Any], list[Any]]] = {
    "inputs": ([image(2, 1, 2, 3), image(0, 1, 1, 1), image(1, 0, 2, 1)], [image(1, 2, 3), image(1, 1, 1, 1, 1), None]),
    "filters": ([1, 3, numpy("int64", 2), numpy("uint8", 2)], [0, -1, None, "two", 2.0, 2.5]),
    "kernel_size": (
        [2, [2, 1], {"tuple": [1, 2]}, numpy("int32", [2, 2])],
        [0, [1, 0], -1, None, [1], [1, 2, 3], "2", [1, "2"], 2.0],
    ),
    "strides": (
        [2, [2, 1], {"tuple": [1, 2]}, numpy("int32", [2, 2])],
        [0, [1, 0], -1, None, [1], [1, 2, 3], "2", [1, "2"], 2.0],
    ),
    "padding": (["valid", "same", "VALID", "Same"], ["full", "causal", "", None]),
    "data_format": (["channels_last", "channels_first", "Channels_First", None], ["NHWC", "channels", ""]),
    "activation": (["@relu", "@negative", None, "relu", "linear"], ["nope"]),
    "use_bias": ([True, False, 0, 1], []),
    "kernel_initializer": (["@shifted", "@rising"], ["@too long", "@without dtype"]),
    "bias_initializer": (["@shifted", "@rising", None], ["@too long", "@without dtype"]),
    "kernel_regularizer": (["@sum", "@squares", "@nothing", "@l1", "@l2", None], [5]),
    "bias_regularizer": (["@sum", "@squares", "@nothing", "@l1", "@l2", None], [5]),
    "activity_regularizer": (["@sum", "@squares", "@l1", "@l2", None], [5, "@nothing"]),
    "kernel_constraint": (["@non_neg", "@as it is", None], [5, "nope"]),
    "bias_constraint": (["@non_neg", "@as it is", None], [5, "nope"]),
    "trainable": ([True, False], []),
    "reuse": ([None, False, AUTO], ["yes", 2]),
    "name": (["d", "d/e", "d.e-f", {"opened": 0}], [5, "a b", "_d", "/d"]),
}

# 6.2: the length of the output, K and S from less to more than each other.
LENGTHS = [(3, 1, 1), (3, 3, 1), (3, 3, 2), (3, 2, 2), (3, 4, 2), (3, 2, 3), (4, 7, 3), (1, 3, 4), (3, 1, 4), (0, 5, 2)]

# 6.3 to 6.6, row by row.
ROWS: dict[str, Program] = {
    "6.3 every dtype": [layer(inputs=image(2, 1, 2, 1, dtype=d)) for d in ("float16", "float32", "float64", "int32")],
    "6.3 variables are made before what follows them fails": [
        layer(bias_initializer="@too long"),
        layer(name="d", bias_initializer="@without dtype"),
        layer(name="d", reuse=AUTO, use_bias=False),
    ],
    "6.3 the store is shared with get_variable": [
        get("d/kernel", 3, 3, 2, 1),
        layer(name="d", reuse=True, use_bias=False),
        layer(name="d", reuse=AUTO),
        scope(get("bias", 2), get("kernel", 3, 3, 2, 1), name="d", reuse=True),
        scope(get("other", 2), name="d", reuse=True),
        get("d/bias", 2),
    ],
    "6.3 trainable at creation only": [
        layer(trainable=False, kernel_constraint="@non_neg"),
        layer(trainable=True, reuse=True, kernel_constraint="@as it is", kernel_initializer="@shifted"),
        layer(),
        get("w", 2, trainable=False),
        get("v", 2),
    ],
    "6.3 the scope's initializer makes kernels, not biases": [
        scope(
            layer(kernel_initializer=None),
            layer(),
            get("w", 2, initializer=None),
            scope(layer(kernel_initializer=None), initializer="@rising", name="t"),
            scope(layer(kernel_initializer=None), name="t"),
            initializer="@shifted",
        ),
    ],
    "6.3 a scope object brings its initializer and regularizer": [
        scope(name="s", initializer="@shifted", regularizer="@sum"),
        scope(layer(kernel_initializer=None), name={"opened": 1}),
        scope(scope(layer(kernel_initializer=None), name={"opened": 1}), name="t", initializer="@rising"),
        layer(name={"opened": 1}, kernel_initializer=None),
        scope(layer(kernel_initializer=None), name={"opened": 1}, initializer="@rising", regularizer="@l1"),
    ],
    "6.4 three calls without a name": [layer(), layer(), layer()],
    "6.4 name='conv2d_transpose_1', then three without": [layer(name="conv2d_transpose_1"), layer(), layer(), layer()],
    "6.4 open and close scope 'conv2d_transpose', then a call": [scope(name="conv2d_transpose"), layer()],
    "6.4 a scope opened again, no reuse": [scope(layer(), layer()), scope(layer())],
    "6.4 a scope opened again, reuse=True": [scope(layer(), layer()), scope(layer(), layer(), layer(), reuse=True)],
    "6.4 a scope opened again, AUTO_REUSE": [scope(layer(), layer()), scope(layer(), layer(), layer(), reuse=AUTO)],
    "6.4 no name, reuse=True after a default call": [layer(), layer(reuse=True), layer(reuse=True)],
    "6.4 no name, AUTO_REUSE after a default call": [layer(), layer(reuse=AUTO), layer(reuse=AUTO)],
    "6.4 a default call after reuse": [layer(reuse=AUTO), layer(), layer(reuse=AUTO)],
    "6.4 a default call, then its name": [layer(), layer(name="conv2d_transpose")],
    "6.4 the empty scope around a call": [scope(layer(), name=""), layer()],
    "6.4 get_variable under the default name first": [get("conv2d_transpose/kernel", 3, 3, 2, 1), layer(), layer()],
    "6.4 a layer object takes its name at its first call": [
        make(),
        make(name="d", activity_regularizer="@sum", kernel_regularizer="@sum"),
        layer(),
        layer(name="d"),
        *(call(0), call(1), call(0), call(1), call(1, image(1, 1, 1, 2))),
        scope(call(0), make(), call(2), scope(layer(), name=None, default_name="d"), make(name="d"), call(3)),
        scope(make(name="d"), call(4), make(), call(5), call(2), reuse=True),
        layer(),
    ],
    "6.4 slashes nest": [
        layer(name="d/e"),
        scope(scope(layer(name="", reuse=True), name="e"), name="d"),
        scope(name=None, default_name="d"),
        scope(name=None, default_name="d/e"),
        scope(layer(), name="d/e"),
    ],
    "6.4 default names count in their scope": [
        scope(name=None, default_name="t"),
        scope(name=None, default_name="t"),
        scope(scope(name=None, default_name="t"), scope(name=None, default_name="t"), name=None, default_name="t"),
        scope(name="t_4"),
        scope(name=None, default_name="t"),
        scope(name=None, default_name="t"),
    ],
    "6.4 closing a scope forgets the counts inside": [
        scope(scope(name="t"), scope(scope(name="u"), name="t"), scope(name=None, default_name="t")),
        scope(scope(name=None, default_name="t"), scope(scope(name=None, default_name="u"), name="t")),
        scope(name=None, default_name="s"),
    ],
    "6.4 a scope object jumps, and restores the counts": [
        scope(scope(layer(), name="t")),
        scope(scope(layer(), layer(name="e"), name={"opened": 2}), layer(), name="u"),
        scope(layer(), name={"opened": 2}),
        scope(scope(layer(), name={"opened": 0}), name="u"),
        layer(),
    ],
    "6.4 a layer in a scope object": [
        scope(layer(name="d"), name="s"),
        layer(name={"opened": 1}),
        scope(layer(name={"opened": 1}, reuse=True), name="u"),
        scope(layer(), name="s"),
    ],
    "6.4 what variable_scope refuses": [
        scope(layer(), name=None),
        scope(layer(), name=5),
        scope(layer(), name="a b"),
        scope(layer(), name="_s"),
        scope(scope(layer(), name="_s"), scope(layer(), name="a b")),
        scope(layer(), reuse="yes"),
        scope(layer(), name=None, default_name="t", reuse=True),
        layer(),
    ],
    "6.4 reuse_variables is of the object, and of scopes opened in it from then on": [
        scope(scope(layer(name="d"), name="t"), layer(name="d")),
        scope({"reuse_variables": {"of": {"opened": 3}}}, layer(name="d"), scope(layer(name="d"), name="t")),
        scope(layer(name="d"), name={"opened": 3}),
        scope(layer(name="d"), name={"opened": 1}),
        scope(scope({"reuse_variables": {"of": {"opened": 8}}}, layer(name="d"), name="t"), layer(name="d"), name="s"),
        {"reuse_variables": {"of": {"opened": 0}}},
        layer(name="d"),
    ],
    "6.4 variables by scope": [
        scope(layer(), layer(trainable=False), scope(layer(), name="t"), name="s"),
        layer(name="st"),
        *({"list": {"of": {"opened": number}}} for number in range(3)),
        *({"list": {"scope": pattern}} for pattern in ("s", "s/", ".*kernel", "kernel", "conv2d_transpose", None)),
    ],
    "6.4 a name is taken though its call fails": [
        layer(kernel_initializer="@too long"),
        layer(activity_regularizer="@nothing"),
        layer(filters=0),
        layer(),
        scope(layer(bias_initializer="@without dtype"), layer(), reuse=AUTO),
    ],
    "6.4 an error leaves scopes": [
        scope(layer(name="d"), layer(name="d"), layer(name="e")) | {"through": True},
        layer(),
        scope(layer(), reuse=AUTO),
    ],
    **{
        f"6.5 {reuse}, {'exists' if exists else 'does not exist'}": [
            *([layer(name="d")] if exists else []),
            layer(name="d", reuse=reuse),
        ]
        for reuse in (None, False, True, AUTO)
        for exists in (True, False)
    },
    **{
        f"6.5 scope {outer}, inner {inner}, layer {own}": [
            scope(layer(name="d"), layer(name="e"), name="s/t"),
            scope(scope(layer(name="d", reuse=own), layer(name="n", reuse=own), name="t", reuse=inner), reuse=outer),
        ]
        for outer, inner, own in (
            (True, False, False),
            (True, None, AUTO),
            (AUTO, True, None),
            (True, AUTO, False),
            (None, AUTO, True),
            (False, None, AUTO),
            (AUTO, False, None),
        )
    },
    "6.5 a scope object brings its own reuse": [
        scope(layer(name="d"), name="s"),
        scope(name="s", reuse=AUTO),
        scope(layer(name="d"), name={"opened": 1}),
        scope(layer(name="d"), name={"opened": 2}),
        scope(scope(layer(name="d"), name={"opened": 1}), name="u", reuse=True),
        scope(layer(name="d"), name={"opened": 1}, reuse=True),
    ],
    "6.5 other shapes": [
        layer(name="d"),
        *(layer(name="d", reuse=reuse, filters=3) for reuse in (True, AUTO)),
        layer(name="d", reuse=True, kernel_size=2),
        layer(name="d", reuse=True, inputs=image(1, 1, 1, 2)),
        layer(name="d", reuse=True, inputs=image(2, 3, 1, 1)),
    ],
    "6.5 other dtypes": [
        layer(name="d"),
        *(layer(name="d", reuse=reuse, inputs=image(1, 2, 1, 1, dtype="float64")) for reuse in (True, AUTO)),
    ],
    "6.5 kernel and bias one by one": [
        layer(name="d"),
        layer(name="d", reuse=True, use_bias=False),
        layer(name="e", use_bias=False),
        layer(name="e", reuse=True),
        layer(name="e", reuse=AUTO),
        layer(name="e"),
    ],
    "6.6 kernel, bias, activity": [
        layer(
            bias_regularizer="@sum", activity_regularizer="@sum", kernel_regularizer="@sum", bias_initializer="@shifted"
        ),
    ],
    "6.6 once, when the variable is made": [
        layer(kernel_regularizer="@sum", bias_regularizer="@l2"),
        layer(reuse=True, kernel_regularizer="@sum", bias_regularizer="@l2"),
        layer(name="d"),
        layer(name="d", reuse=True, kernel_regularizer="@sum"),
        layer(trainable=False, kernel_regularizer="@l1"),
    ],
    "6.6 as the regularizer gives it": [layer(kernel_regularizer="@squares", bias_regularizer="@nothing"), layer()],
    "6.6 no bias, no loss of it": [layer(use_bias=False, bias_regularizer="@sum")],
    "6.6 activity on every call, by the batch": [
        layer(activity_regularizer="@sum", inputs=image(2, 1, 2, 1), activation="@negative"),
        layer(activity_regularizer="@squares", inputs=image(2, 1, 2, 1), reuse=True),
        layer(activity_regularizer="@l1", inputs=image(0, 1, 2, 1), reuse=True),
        layer(activity_regularizer="@sum", inputs=image(2, 0, 2, 1), reuse=True),
        layer(activity_regularizer="@nothing", reuse=True),
    ],
    "6.6 the scope's before its own": [
        scope(layer(kernel_regularizer="@l1"), layer(), get("w", 2), regularizer="@twice the sum"),
        scope(layer(bias_regularizer="@l2"), get("v", 2, regularizer="@sum"), name="t", regularizer="@squares"),
        scope(layer(kernel_regularizer="@l1"), layer(), reuse=True, regularizer="@sum"),
        scope(scope(layer(), regularizer="@l1", name="v"), scope(layer(), name="w"), name="u", regularizer="@l2"),
    ],
    "6.6 constraints are kept, not applied": [
        layer(kernel_constraint="@non_neg", bias_constraint="@as it is", bias_initializer="@shifted"),
        get("w", 2, constraint="@non_neg"),
    ],
}


def programs() -> dict[str, Program]:
    """Every program by its name. Calls have names, so that a refused one takes none from the next."""
    tables = {
        f"6.1 {argument} {verdict}": [
            layer(**{"name": f"call_{at}"} | {argument: value}) for at, value in enumerate(values)
        ]
        for argument, both in ARGUMENTS.items()
        for verdict, values in zip(("accepted", "refused"), both, strict=True)
        if values
    }
    lengths = {
        f"6.2 {padding}, {data_format}": [
            layer(
                inputs=image(*((1, 1, size, 2) if data_format == "channels_first" else (1, size, 2, 1))),
                kernel_size=[kernel, 2],
                strides=[stride, 1],
                padding=padding,
                data_format=data_format,
                bias_initializer="@shifted",
            )
            for size, kernel, stride in LENGTHS
        ]
        for padding in ("valid", "same")
        for data_format in ("channels_last", "channels_first")
    }
    return tables | lengths | ROWS | {f"random {at}": draw_program([0, at]) for at in range(RANDOM)}


def recorded(program: Program) -> dict[str, Any]:
    return {"program": program, "outcome": asdict(tensorflow.answer(program))}


DTYPES = ("float32", "float64")
LARGE = [x * sign for x in (1e-8, 1e-3, 9.5, 20.0, 90.0, 1e4, 1e30) for sign in (1, -1)]
GRID = [*np.linspace(-8, 8, 43).tolist(), *LARGE]
ACTIVATIONS = """elu exponential gelu hard_sigmoid leaky_relu linear mish relu relu6 selu sigmoid silu softplus softsign
    swish tanh softmax"""
SINGLE = ("leaky_relu", "gelu")  # TensorFlow has the constants of these in float32 only

REGULARIZERS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("l1", "l2", "l1_l2")),
    ("l1", {"l": 0.3}),
    ("l2", {"l": 0.7}),
    ("l1_l2", {"l1": 0.3, "l2": 0.7}),
]
CONSTRAINTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("non_neg", "unit_norm", "max_norm", "min_max_norm")),
    ("unit_norm", {"axis": [0, 1, 2]}),
    ("max_norm", {"max_value": 0.5, "axis": [0, 1]}),
    ("min_max_norm", {"min_value": 0.5, "max_value": 1.5, "rate": 0.25, "axis": 0}),
    ("min_max_norm", {"min_value": 4.0, "max_value": 5.0, "axis": [0, 1, 2]}),
]

FANS = {"scale": 2.0, "mode": "fan_in"}
INITIALIZERS: list[tuple[str, dict[str, Any]]] = [
    *((f"{name}_initializer", {}) for name in ("zeros", "ones", "random_normal", "random_uniform", "truncated_normal")),
    *((f"{name}_initializer", {}) for name in ("glorot_uniform", "glorot_normal", "variance_scaling")),
    ("constant_initializer", {"value": 2.5}),
    ("random_normal_initializer", {"mean": 1.0, "stddev": 0.5}),
    ("random_uniform_initializer", {"minval": -2.0, "maxval": 5.0}),
    ("truncated_normal_initializer", {"mean": -1.0, "stddev": 2.0}),
    ("variance_scaling_initializer", FANS),
    ("variance_scaling_initializer", FANS | {"mode": "fan_out", "distribution": "uniform"}),
    ("variance_scaling_initializer", FANS | {"mode": "fan_avg", "distribution": "untruncated_normal"}),
]
SHAPES = [[3, 2, 50, 80], [400, 60], [20000]]


def activations() -> list[dict[str, Any]]:
    """Values at the grid's numbers, which lie in three channels, so that softmax has something to sum over."""
    get = tensorflow.v1.keras.activations.get
    grid = np.reshape(GRID, (1, -1, 1, 3))
    return [
        {"name": name, "inputs": inputs, "outputs": get(name)(tensorflow.tf.constant(inputs)).numpy()}
        for name in ACTIVATIONS.split()
        for inputs in (grid.astype(dtype) for dtype in DTYPES)
        if inputs.dtype == "float32" or name not in SINGLE
    ]


def functions(module: Any, made: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Values of regularizers or constraints, at integers of which some columns are all zero."""
    kernel = integers((3, 2, 2, 5), "float64") * 0.75
    kernel[..., 1] = 0
    return [
        {"name": name, "arguments": arguments, "inputs": inputs, "outputs": _compute(module, name, arguments, inputs)}
        for name, arguments in made
        for inputs in (kernel.astype(dtype) for dtype in DTYPES)
    ]


def _compute(module: Any, name: str, arguments: dict[str, Any], inputs: np.ndarray) -> np.ndarray:
    """The function's value. Some constraints compute in the type that Keras is set to, whatever they are given."""
    floatx = tensorflow.v1.keras.backend.floatx()
    tensorflow.v1.keras.backend.set_floatx(inputs.dtype.name)
    try:
        return np.asarray(getattr(module, name)(**arguments)(tensorflow.tf.constant(inputs)))
    finally:
        tensorflow.v1.keras.backend.set_floatx(floatx)


def initializers() -> list[dict[str, Any]]:
    """Mean, deviation and range of many numbers."""
    tensorflow.tf.random.set_seed(0)
    return [
        {"name": name, "arguments": arguments, "shape": shape, "statistics": statistics(made(shape).numpy())}
        for name, arguments in INITIALIZERS
        for made in [getattr(tensorflow.v1, name)(**arguments)]
        for shape in SHAPES
    ]


def main() -> None:
    keras = tensorflow.v1.keras
    recording = {
        "programs": {name: recorded(program) for name, program in programs().items()},
        "activations": activations(),
        "regularizers": functions(keras.regularizers, REGULARIZERS),
        "constraints": functions(keras.constraints, CONSTRAINTS),
        "initializers": initializers(),
    }
    path = Path(__file__).with_name("layers.json.gz")
    text = json.dumps(recording, default=as_json, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    counts = ", ".join(f"{len(entries)} {name}" for name, entries in recording.items())
    print(f"{path.name}: {counts}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
