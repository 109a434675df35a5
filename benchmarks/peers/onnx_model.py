# SPDX-License-Identifier: Apache-2.0
"""A model of one layer, for the libraries that read ONNX."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from workload import Workload

from peers.channels_first import filter_first

TYPES = {
    "bfloat16": TensorProto.BFLOAT16,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}


def onnx_model(work: Workload, dtype: str, filter: np.ndarray | None) -> bytes:
    """The filter is a constant of the model, or None: an input of it."""
    inputs, outputs = work.channels
    shapes = {
        "x": (work.batch, inputs, *work.size),
        "w": (inputs, outputs // work.groups, *work.kernel),
        "y": (work.batch, outputs, *work.output),
    }
    x, w, y = (helper.make_tensor_value_info(name, TYPES[dtype], shape) for name, shape in shapes.items())
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
    constants = [] if filter is None else [numpy_helper.from_array(filter_first(filter), "w")]
    graph = helper.make_graph([node], "layer", [x] if constants else [x, w], [y], constants)
    opset, ir = (22, 10) if dtype == "bfloat16" else (17, 9)  # the first that has it; else what every reader reads
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    return bytes(model.SerializeToString())
