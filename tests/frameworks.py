# SPDX-License-Identifier: Apache-2.0
"""The code of a port, run by the framework itself.

Each runner takes a port, the input as the port takes it, the filter in the framework's order and the bias, runs the
port's own code, and gives the result. What the code leaves open, the values of a layer's parameters, it fills in.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

import backstride
from backstride.convert import Port

DEFINED = "y = layer(x)"


def run(port: Port, x: np.ndarray, filters: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The result of a port for an input as its layer has it, and a filter in TensorFlow's order."""
    moved = port.channels_first != port.layer.channels_first
    first = port.layer.channels_first
    x = np.ascontiguousarray(_move(x, first)) if moved else x
    runner = RUNNERS[port.framework.name]
    y = np.asarray(runner(port, x, np.ascontiguousarray(port.weights(filters)), bias))
    return _move(y, not first) if moved else y


def _move(array: np.ndarray, first: bool) -> np.ndarray:
    """Channels to the other side, from the first one or not."""
    return np.moveaxis(array, 1, -1) if first else np.moveaxis(array, -1, 1)


def _layered(port: Port, fill: Any, **names: Any) -> Any:
    """Runs code that makes a layer and calls it, and `fill` in between."""
    before, _, after = port.code.partition(DEFINED)
    names = dict(names)
    exec(before, names)
    names["layer"] = fill(names["layer"]) or names["layer"]
    exec(DEFINED + after, names)
    return names["y"]


def _torch(port: Port, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    import torch

    def fill(layer: Any) -> None:
        values = {"weight": weight, "bias": bias}
        layer.load_state_dict({name: torch.from_numpy(values[name]) for name in layer.state_dict()})

    with torch.no_grad():
        return _layered(port, fill, x=torch.from_numpy(x), bias=torch.from_numpy(bias)).numpy()


def _mlx(port: Port, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    import mlx.core as mx

    def fill(layer: Any) -> None:
        layer.weight = mx.array(weight)
        if "bias" in layer:
            layer.bias = mx.array(bias)

    return np.array(_layered(port, fill, x=mx.array(x), bias=mx.array(bias)))


def _keras(port: Port, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    import keras

    def fill(layer: Any) -> None:
        layer.build(x.shape)
        layer.set_weights([weight, bias] if layer.use_bias else [weight])

    return keras.ops.convert_to_numpy(_layered(port, fill, x=x, bias=keras.ops.convert_to_tensor(bias)))


def _lax(port: Port, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    names: dict[str, Any] = {"x": x, "weight": weight, "bias": bias}
    exec(port.code, names)
    return np.asarray(names["y"])


def _linen(port: Port, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    names: dict[str, Any] = {"x": x, "bias": bias, "variables": {"params": {"kernel": weight, "bias": bias}}}
    exec(port.code, names)
    return np.asarray(names["y"])


def _nnx(port: Port, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    import jax.numpy as jnp

    def fill(layer: Any) -> None:
        layer.kernel[...] = jnp.asarray(weight)
        if layer.bias is not None:
            layer.bias[...] = jnp.asarray(bias)

    return np.asarray(_layered(port, fill, x=x, bias=bias))


def _haiku(port: Port, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    import haiku
    import jax

    def function(x: Any) -> Any:
        names: dict[str, Any] = {"x": x, "bias": bias}
        exec(port.code, names)
        return names["y"]

    net = haiku.transform(function)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    values = {"w": weight, "b": bias}
    params = {
        module: {name: values[name].reshape(shape.shape) for name, shape in entries.items()}
        for module, entries in shapes.items()
    }
    return np.asarray(net.apply(params, None, x))


def _equinox(port: Port, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    import equinox
    import jax.numpy as jnp

    before, _, after = port.code.partition("y = jax")
    names: dict[str, Any] = {"x": x, "bias": bias}
    exec(before, names)
    layer = names["layer"]
    layer = equinox.tree_at(lambda layer: layer.weight, layer, jnp.asarray(weight))
    if layer.use_bias:
        layer = equinox.tree_at(lambda layer: layer.bias, layer, jnp.asarray(bias).reshape(layer.bias.shape))
    names["layer"] = layer
    exec("y = jax" + after, names)
    return np.asarray(names["y"])


def _onnx(port: Port, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    names: dict[str, Any] = {}
    exec(port.code, names)
    return run_nodes(names["nodes"], x, {"weight": weight, "bias": bias})


def run_nodes(nodes: Any, x: np.ndarray, constants: dict[str, np.ndarray]) -> np.ndarray:
    """What ONNX Runtime makes of nodes from 'x' to 'y'."""
    import onnxruntime
    from onnx import TensorProto, checker, helper, numpy_helper

    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * x.ndim)],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def _tflite(port: Port, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """By TFLite's interpreter, the operator alone; its code needs TensorFlow's converter."""
    said, lengths = port.arguments, (x.shape[1:3])
    shape = np.array([len(x), *port.said.output(lengths), port.layer.out_channels], np.int32)
    y = run_operator(x, weight, shape, said["padding"], (said["stride_h"], said["stride_w"]))
    cut = tuple(slice(max(a, 0), y.shape[n] - max(b, 0)) for n, (a, b) in enumerate(port.crop, 1))
    added = [(0, 0), *((max(-a, 0), max(-b, 0)) for a, b in port.crop), (0, 0)]
    y = np.pad(y[(slice(None), *cut)], added)
    return y + bias if port.layer.bias else y


def run_operator(
    x: np.ndarray, weight: np.ndarray, output_shape: np.ndarray, padding: str, strides: tuple[int, int]
) -> np.ndarray:
    """What TFLite's interpreter makes of one TRANSPOSE_CONV."""
    import flatbuffers
    from ai_edge_litert import interpreter
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, shape: Any, kind: int, buffer: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(map(int, shape)), kind, buffer
        return made

    model, graph, operator, options, code = (
        schema.ModelT(),
        schema.SubGraphT(),
        schema.OperatorT(),
        schema.TransposeConvOptionsT(),
        schema.OperatorCodeT(),
    )
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.TRANSPOSE_CONV
    code.version = 1
    options.padding = schema.Padding.SAME if padding == "SAME" else schema.Padding.VALID
    options.strideH, options.strideW = strides
    graph.tensors = [
        tensor("shape", [4], schema.TensorType.INT32, 1),
        tensor("weight", weight.shape, schema.TensorType.FLOAT32, 2),
        tensor("x", x.shape, schema.TensorType.FLOAT32, 0),
        tensor("y", output_shape, schema.TensorType.FLOAT32, 0),
    ]
    graph.inputs, graph.outputs = [2], [3]
    operator.inputs, operator.outputs = [0, 1, 2], [3]
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.TransposeConvOptions, options
    graph.operators = [operator]
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT() for _ in range(3)]
    model.buffers[1].data = np.frombuffer(output_shape.astype(np.int32).tobytes(), np.uint8)
    model.buffers[2].data = np.frombuffer(weight.astype(np.float32).tobytes(), np.uint8)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    lite = interpreter.Interpreter(model_content=bytes(builder.Output()), num_threads=1)
    lite.allocate_tensors()
    lite.set_tensor(lite.get_input_details()[0]["index"], x)
    lite.invoke()
    return lite.get_tensor(lite.get_output_details()[0]["index"])


# What the code asks of TensorFlow, by this library, which has its documented functions.
TENSORFLOW = SimpleNamespace(nn=backstride.nn, layers=backstride.layers, keras=backstride.keras, pad=np.pad)


def _tensorflow(port: Port, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    code = "\n".join(line for line in port.code.splitlines() if "import" not in line)
    names: dict[str, Any] = {"x": x, "weight": weight, "bias": bias}
    names["tf"] = TENSORFLOW
    if port.framework.name != "tf.layers":
        exec(code, names)
        return names["y"]
    store = backstride.VariableStore()

    def function() -> Any:
        exec(code, names)
        return names["y"]

    store.run(function)
    values = {name: weight if name.endswith("kernel") else bias for name in store.values()}
    return store.run(function, values=values).result


RUNNERS = {
    "tf.nn": _tensorflow,
    "tf.layers": _tensorflow,
    "tf.keras.backend": _tensorflow,
    "keras": _keras,
    "torch": _torch,
    "jax.lax.conv_transpose": _lax,
    "jax.lax.conv_general_dilated": _lax,
    "flax.linen": _linen,
    "flax.nnx": _nnx,
    "haiku": _haiku,
    "equinox": _equinox,
    "onnx": _onnx,
    "tflite": _tflite,
    "mlx": _mlx,
}
