# SPDX-License-Identifier: Apache-2.0
"""The libraries that are compared, each in a process of its own: `python peers.py NAME THREADS` reads orders.

A peer is a function from (workload, inputs, filter, packed) to `make`, where `make(filter)` returns what one timed call
does. `packed`: the filter is known beforehand, and the peer may do with it what it does for inference. Otherwise every
call gets a new one. `run` returns the result in the peer's own layout, which `channels_last` undoes for the check.

Orders are lines of JSON: {"prepare": workload name, "packed": bool, "result": file} answers {}, after writing the
result; {"time": calls} answers {"seconds": [...]}; what is not supported answers {"error": why}.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from workload import Workload, workloads

Array = Any
Run = Callable[[], Array]
Make = Callable[[np.ndarray], Run]


class Unsupported(Exception):
    """The peer has no such layer."""


def channels_first(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, -1, 1))


def backstride(work: Workload, value: np.ndarray, packed: bool, threads: int) -> tuple[Make, bool]:
    import backstride
    from backstride._backends import numpy as core
    from backstride._geometry import Axis, Geometry

    backstride.set_num_threads(threads)
    if packed:

        def make(filter: np.ndarray) -> Run:
            plan = backstride.plan(filter, work.stride, work.padding, groups=work.groups)
            return lambda: plan(value)

        return make, False
    if work.groups > 1:  # which no documented function has
        sizes = zip(work.size, work.kernel, work.output, work.stride, work.crop, strict=True)
        axes = tuple(Axis(i, k, o, s, 1, before) for i, k, o, s, (before, _) in sizes)
        geometry = Geometry(axes, work.batch, *work.channels, work.groups)
        return lambda filter: lambda: core.derivative("output", geometry, value, filter), False
    shape = (work.batch, *work.output, work.channels[1])
    return (
        lambda filter: lambda: backstride.nn.conv_transpose(value, filter, shape, work.stride, work.padding),
        False,
    )


def torch(work: Workload, value: np.ndarray, packed: bool, threads: int, last: bool = False) -> tuple[Make, bool]:
    import torch

    torch.set_num_threads(threads)
    function = getattr(torch.nn.functional, f"conv_transpose{work.rank}d")
    form = {2: torch.channels_last, 3: torch.channels_last_3d}.get(work.rank) if last else torch.contiguous_format
    if form is None:
        raise Unsupported("no channels_last form of 1-D tensors")
    x = torch.from_numpy(channels_first(value)).contiguous(memory_format=form)
    before = [pair[0] for pair in work.crop]
    extra = [max(-after, 0) for _, after in work.crop]
    window = tuple(slice(0, length) for length in work.output)  # an odd crop takes one more after than before

    def make(filter: np.ndarray) -> Run:
        order = (work.rank + 1, work.rank, *range(work.rank))
        w = torch.from_numpy(np.ascontiguousarray(filter.transpose(order))).contiguous(memory_format=form)

        @torch.inference_mode()
        def run() -> Array:
            y = function(x, w, stride=work.stride, padding=before, output_padding=extra, groups=work.groups)
            return y[(..., *window)]

        return run

    return make, True


def torch_channels_last(work: Workload, value: np.ndarray, packed: bool, threads: int) -> tuple[Make, bool]:
    return torch(work, value, packed, threads, last=True)


def tensorflow(work: Workload, value: np.ndarray, packed: bool, threads: int) -> tuple[Make, bool]:
    import tensorflow as tf

    if work.groups > 1:
        raise Unsupported("no groups")
    if not tf.config.threading.get_intra_op_parallelism_threads():
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    x, shape = tf.constant(value), (work.batch, *work.output, work.channels[1])
    layer = {1: tf.nn.conv1d_transpose, 2: tf.nn.conv2d_transpose, 3: tf.nn.conv3d_transpose}[work.rank]

    def make(filter: np.ndarray) -> Run:
        w = tf.constant(filter)
        call = tf.function(lambda x: layer(x, w, shape, work.stride, work.padding), jit_compile=False)
        if packed:
            return lambda: call(x)
        return lambda: layer(x, w, shape, work.stride, work.padding)

    return make, False


def jax(work: Workload, value: np.ndarray, packed: bool, threads: int) -> tuple[Make, bool]:
    import jax

    names = "DHW"[3 - work.rank :]
    layout = (f"N{names}C", f"{names}OI", f"N{names}C")
    pads = [(k - 1 - a, k - 1 - b) for k, (a, b) in zip(work.kernel, work.crop, strict=True)]
    axes = tuple(range(work.rank))

    def layer(x: Array, w: Array) -> Array:
        if work.groups > 1:  # JAX wants all output channels along one axis, a group's input channels along the other
            *kernel, out, _ = w.shape
            w = w.reshape(*kernel, out, work.groups, -1)
            w = jax.numpy.moveaxis(w, -2, -3).reshape(*kernel, out * work.groups, -1)
        return jax.lax.conv_general_dilated(
            x,
            jax.numpy.flip(w, axes),
            (1,) * work.rank,
            pads,
            lhs_dilation=work.stride,
            dimension_numbers=layout,
            feature_group_count=work.groups,
        )

    x = jax.numpy.asarray(value)
    eager = jax.jit(layer)

    def make(filter: np.ndarray) -> Run:
        w = jax.numpy.asarray(filter)
        call = jax.jit(lambda x: layer(x, w)) if packed else lambda x: eager(x, w)
        return lambda: call(x).block_until_ready()

    return make, False


def onnx_model(work: Workload, filter: np.ndarray | None) -> bytes:
    """A model of the one layer, its filter a constant or an input."""
    from onnx import TensorProto, helper, numpy_helper

    inputs, outputs = work.channels
    names = "x", "w", "y"
    shapes = [
        (work.batch, inputs, *work.size),
        (inputs, outputs // work.groups, *work.kernel),
        (work.batch, outputs, *work.output),
    ]
    x, w, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True))
    before, after = zip(*work.crop, strict=True)
    node = helper.make_node(
        "ConvTranspose",
        ["x", "w"],
        ["y"],
        strides=work.stride,
        kernel_shape=work.kernel,
        group=work.groups,
        pads=[*before, *(max(cut, 0) for cut in after)],
        output_padding=[max(-cut, 0) for cut in after],
    )
    constants = [] if filter is None else [numpy_helper.from_array(onnx_filter(filter), "w")]
    graph = helper.make_graph([node], "layer", [x] if constants else [x, w], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def onnx_filter(filter: np.ndarray) -> np.ndarray:
    rank = filter.ndim - 2
    return np.ascontiguousarray(filter.transpose(rank + 1, rank, *range(rank)))


def onnxruntime(work: Workload, value: np.ndarray, packed: bool, threads: int) -> tuple[Make, bool]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    x = channels_first(value)
    shared = None if packed else ort.InferenceSession(onnx_model(work, None), options, ["CPUExecutionProvider"])

    def make(filter: np.ndarray) -> Run:
        if shared is not None:
            feeds = {"x": x, "w": onnx_filter(filter)}
            return lambda: shared.run(None, feeds)[0]
        session = ort.InferenceSession(onnx_model(work, filter), options, ["CPUExecutionProvider"])
        return lambda: session.run(None, {"x": x})[0]

    return make, True


def openvino(work: Workload, value: np.ndarray, packed: bool, threads: int) -> tuple[Make, bool]:
    import openvino as ov

    core = ov.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    x = channels_first(value)

    def compiled(filter: np.ndarray | None) -> Any:
        return core.compile_model(core.read_model(onnx_model(work, filter)), "CPU", settings).create_infer_request()

    shared = None if packed else compiled(None)

    def make(filter: np.ndarray) -> Run:
        request = shared or compiled(filter)
        feeds = [x, onnx_filter(filter)] if shared else [x]
        return lambda: request.infer(feeds, share_inputs=True, share_outputs=True)[0]

    return make, True


PEERS = {
    "backstride": backstride,
    "torch": torch,
    "torch_channels_last": torch_channels_last,
    "tensorflow": tensorflow,
    "jax": jax,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}
PACKAGES = {"torch_channels_last": "torch"}


def serve(name: str, threads: int) -> None:
    """Answers orders until there are no more."""
    version = importlib.metadata.version(PACKAGES.get(name, name))
    print(json.dumps({"version": version}), flush=True)
    make: Make | None = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if "prepare" in order:
                make = None
                (work,) = [work for work in workloads([order["prepare"]]) if work.name == order["prepare"]]
                value, filter = work.arrays()
                packed = order["packed"]
                make, first = PEERS[name](work, value, packed, threads)
                run = make(filter)
                result = np.asarray(run())
                np.save(order["result"], np.moveaxis(result, 1, -1) if first else result)
                answer: dict[str, Any] = {}
            else:
                assert make is not None
                seconds = []
                for _ in range(order["time"]):
                    if not packed:
                        run = make(filter.copy())
                    begin = time.perf_counter()
                    run()
                    seconds.append(time.perf_counter() - begin)
                answer = {"seconds": seconds}
        except Exception as error:  # whatever a library raises ends this layer, not the comparison
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
