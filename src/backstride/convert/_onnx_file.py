# SPDX-License-Identifier: Apache-2.0
"""Layers in ONNX models."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backstride import _files
from backstride.convert import _notes
from backstride.convert._code import zeros
from backstride.convert._named_layer import NamedLayer
from backstride.convert._onnx import NODE, ONNX, from_onnx
from backstride.convert._port import Port
from backstride.convert._weights import LAYOUTS

# What a name of a value stands for: the tensor or the node that makes it, or, of an input, nothing.
Sources = ChainMap[str, Any]


def load(path: Path) -> list[NamedLayer]:
    """The nodes ConvTranspose of a model, with those in branches and loops."""
    onnx = _onnx()
    model = onnx.ModelProto.FromString(path.read_bytes())
    if not model.ir_version or not model.HasField("graph"):
        raise ValueError("it holds no ONNX model")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    reader = _Reader(model, path.parent)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    _, noted = _notes.read(notes.get(_files.NOTE, ""), {"onnx": ONNX})
    result, taken = [], set[str]()
    for node, sources in _nodes(model.graph, ChainMap()):
        if node.op_type == "ConvTranspose" and node.domain in ("", "ai.onnx"):
            name = node.name if node.name and node.name not in taken else _first(node.output)
            taken.add(name)
            result.append(reader.layer(name, node, sources, noted.get(name)))
    return result


class _Reader:
    """The layers of one model in `folder`."""

    def __init__(self, model: Any, folder: Path) -> None:
        self.model = model
        self.folder = folder
        self.lengths: dict[str, list[int | None]] | None = None

    def layer(self, name: str, node: Any, sources: Sources, noted: _notes.Noted | None) -> NamedLayer:
        """The layer of a node; if it is as the note says, that of the note."""
        weights = self._constant(name, _at(node.input, 1), sources)
        bias = self._constant(name, _at(node.input, 2), sources) if _at(node.input, 2) else None
        said = {entry.name: _onnx().helper.get_attribute_value(entry) for entry in node.attribute if entry.name in NODE}
        if "auto_pad" in said:
            said["auto_pad"] = said["auto_pad"].decode()
        if said.get("output_shape"):
            said["input"] = self._lengths(name, _at(node.input, 0), weights.ndim - 2)
        try:
            layer = from_onnx(weights.shape, **said, bias=bias is not None)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the node {name!r} is no layer: {error}") from None
        if noted and noted.port.said.replace(bias=layer.bias, channels_first=True) == layer:
            column = sources.get(f"{name}.bias")
            if noted.port.bias_after and column is not None:
                return noted.layer(weights, self._array(name, column))
            if not noted.port.bias_after:
                return noted.layer(weights, bias)
        return NamedLayer(name, layer, LAYOUTS["torch"].read(weights, layer.groups), bias)

    def _constant(self, name: str, value: str, sources: Sources) -> np.ndarray:
        """The array that an input of the node `name` is."""
        source: Any = sources.get(value)
        seen = {value}
        while getattr(source, "op_type", "") == "Identity" and (before := _at(source.input, 0)) not in seen:
            seen.add(before)
            source = sources.get(before)
        if getattr(source, "op_type", "") == "Constant":
            source = next((entry.t for entry in source.attribute if entry.name == "value"), source)
        if isinstance(source, _onnx().TensorProto):
            return self._array(name, source)
        made = f"the result of a node {source.op_type}" if hasattr(source, "op_type") else "an input of the model"
        raise ValueError(
            f"the weights of the node {name!r} must be constants, which {value!r}, {made}, is not; fold constants first"
        )

    def _array(self, name: str, tensor: Any) -> np.ndarray:
        """The array of a tensor, whose content may be in another file."""
        onnx = _onnx()
        if tensor.data_type == onnx.TensorProto.BFLOAT16:
            _files.know_bfloat16()
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            inline = onnx.TensorProto()
            inline.CopyFrom(tensor)
            inline.ClearField("external_data")
            inline.data_location = onnx.TensorProto.DEFAULT
            inline.raw_data = self._outside(name, tensor)
            tensor = inline
        array: np.ndarray = onnx.numpy_helper.to_array(tensor)
        return array

    def _outside(self, name: str, tensor: Any) -> bytes:
        """The bytes of a tensor that are in a file beside the model."""
        place: dict[str, str] = {entry.key: entry.value for entry in tensor.external_data}
        folder = self.folder.resolve()
        path = (folder / place.get("location", "")).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            raise ValueError(
                f"the weights of {name!r} are in {place.get('location')!r}, which is no file beside the model"
            )
        start = int(place.get("offset") or 0)
        size: int = math.prod(tensor.dims) * _onnx().helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        there = path.stat().st_size
        if int(place.get("length") or size) != size or not (0 <= start <= there - size and size >= 0):
            raise ValueError(
                f"the weights of {name!r}, {size} bytes from {start} on, are not in {path.name}, of {there} bytes"
            )
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    def _lengths(self, name: str, value: str, rank: int) -> list[int]:
        """The lengths of a node's input, which its `output_shape` is for."""
        if self.lengths is None:
            self.lengths = dict(_shapes(self._inferred().graph))
        lengths = self.lengths.get(value, [])[2:]
        known = [length for length in lengths if length]
        if len(known) != rank:
            raise ValueError(
                f"the node {name!r} has an `output_shape`, which is for inputs of one size, and the model does not say "
                f"the lengths of {value!r}; export it with fixed lengths of its inputs, or with `pads`"
            )
        return known

    def _inferred(self) -> Any:
        try:
            return _onnx().shape_inference.infer_shapes(self.model)
        except Exception:  # of what can't be inferred, there is what the model says by itself
            return self.model


def _nodes(graph: Any, outer: Sources) -> Iterator[tuple[Any, Sources]]:
    """The nodes of a graph and of those within them, and what the names that they see stand for."""
    sources = outer.new_child()
    sources.update({entry.name: None for entry in graph.input})
    sources.update({output: node for node in graph.node for output in node.output})
    sources.update({tensor.name: tensor for tensor in graph.initializer})
    for node in graph.node:
        yield node, sources
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from _nodes(inner, sources)


def _shapes(graph: Any) -> Iterator[tuple[str, list[int | None]]]:
    """The lengths that a model says of values; None are those that depend on the input."""
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        yield value.name, [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from _shapes(inner)


def save(path: Path, layers: Sequence[NamedLayer]) -> None:
    """Writes one graph, in which each layer has an input and an output, `<name>.input` and `<name>.output`."""
    onnx, helper = _onnx(), _onnx().helper
    stored = _notes.stored(layers, ONNX)
    size = sum(found.filters.nbytes for found in layers)
    if size >= 2**31 - 2**20:
        raise ValueError(
            f"ONNX files hold less than 2 GiB, and the layers have {size} bytes; save them in several files"
        )
    graph = onnx.GraphProto(name="layers")
    for name, (found, port) in stored.items():
        _add(graph, name, found, port)
    new = any(found.filters.dtype.name == "bfloat16" for found in layers)
    model = helper.make_model(
        graph,
        producer_name="backstride",
        ir_version=10 if new else 8,
        opset_imports=[helper.make_opsetid("", 22 if new else 17)],
    )
    helper.set_model_props(model, {_files.NOTE: _notes.write("onnx", stored)})
    onnx.checker.check_model(model)
    with _files.whole_file(path) as file:
        file.write(model.SerializeToString())


def _add(graph: Any, name: str, found: NamedLayer, port: Port) -> None:
    """Adds the nodes of a port."""
    helper, rank = _onnx().helper, found.layer.rank
    dtype = helper.np_dtype_to_tensor_dtype(found.filters.dtype)

    def constant(what: str, array: Any) -> Any:
        tensor = _onnx().numpy_helper.from_array(np.ascontiguousarray(array), f"{name}.{what}")
        graph.initializer.append(tensor)
        return tensor.name

    inputs = [f"{name}.input", constant("weight", port.weights(found.filters))]
    if port.arguments["bias"]:
        inputs.append(constant("bias", found.bias))
    nodes = [("ConvTranspose", name, inputs, {key: value for key, value in port.arguments.items() if key in NODE})]
    if pairs := zeros(port.crop):
        pads = [0, 0, *(before for before, _ in pairs), 0, 0, *(after for _, after in pairs)]
        nodes.append(("Pad", f"{name}.pad", [f"{name}.cropped", constant("pads", np.array(pads, np.int64))], {}))
    if port.bias_after:
        shape = constant("shape", np.array([1, -1, *[1] * rank], np.int64))
        column = helper.make_node(
            "Reshape", [constant("bias", found.bias), shape], [f"{name}.column"], f"{name}.reshape"
        )
        graph.node.append(column)
        nodes.append(("Add", f"{name}.add", [f"{name}.padded", f"{name}.column"], {}))
    results = [*(values[0] for _, _, values, _ in nodes[1:]), f"{name}.output"]
    for (kind, label, values, attributes), result in zip(nodes, results, strict=True):
        graph.node.append(helper.make_node(kind, values, [result], label, **attributes))
    for kind, channels, values in (
        ("input", found.layer.in_channels, graph.input),
        ("output", found.layer.out_channels, graph.output),
    ):
        axes = [f"{name}.{kind}.{axis}" for axis in range(rank)]
        values.append(helper.make_tensor_value_info(f"{name}.{kind}", dtype, [f"{name}.batch", channels, *axes]))


def _at(values: Sequence[str], n: int) -> str:
    return values[n] if n < len(values) else ""


def _first(values: Sequence[str]) -> str:
    if not values:
        raise ValueError("it has a node without a result")
    return values[0]


def _onnx() -> Any:
    try:
        import onnx
        import onnx.inliner
    except ImportError:
        raise ImportError(".onnx files need the extra `convert`: pip install 'backstride[convert]'") from None
    return onnx
