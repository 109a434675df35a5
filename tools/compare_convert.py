# SPDX-License-Identifier: Apache-2.0
"""Random layers by the code of their ports to TensorFlow, run by TensorFlow, and the same by this library.

    make compare-tf SEED=1 COUNT=2000

runs it after the others, with a tenth of the count. It compares `tf.nn`, Keras on TensorFlow, the function of tf_keras,
and models of TFLite that TensorFlow's converter makes, exactly, on small integers. What TensorFlow has no kernel for on
CPUs, which are channels first and dilations, is left out.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import frameworks
import numpy as np
import tensorflow as tf
import tf_keras

from backstride import convert
from backstride.convert import ConvTranspose, Port


def random_layer(rng: np.random.Generator, rank: int) -> ConvTranspose:
    """Layers that crop by name, by numbers, and in ways that take zeros."""
    kernel, stride = (tuple(map(int, rng.integers(1, most, rank))) for most in (6, 5))
    how, crop = rng.integers(4), []
    for extent, step in zip(kernel, stride, strict=True):
        total = extent - step
        if how == 0:
            crop.append((max(total, 0) // 2, total - max(total, 0) // 2))
        elif how == 1:
            crop.append((0, min(total, 0)))
        else:
            lowest = 0 if how == 2 else -3
            crop.append((int(rng.integers(lowest, extent)), int(rng.integers(lowest, extent))))
    groups = int(rng.choice([1, 1, 2]))
    channels = (groups * int(n) for n in rng.integers(1, 4, 2))
    return ConvTranspose(kernel, stride, 1, tuple(crop), *channels, groups, bias=bool(rng.integers(2)))


def in_tensorflow(port: Port, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The code of a functional port."""
    names: dict[str, Any] = {"x": tf.constant(x), "weight": weight, "bias": bias}
    lines = (line for line in port.code.splitlines() if not line.startswith("import"))
    names["tf"] = tf
    if port.framework.name == "tf.keras.backend":  # which only Keras 2 has
        names["tf"] = SimpleNamespace(keras=SimpleNamespace(backend=tf_keras.backend), pad=tf.pad)
    exec("\n".join(lines), names)
    return names["y"].numpy()


def in_lite(port: Port, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The model that the code makes, by TFLite's interpreter."""
    names: dict[str, Any] = {"filters": convert.LAYOUTS["tflite"].read(weight), "bias": bias}
    exec(port.code, names)
    lite = tf.lite.Interpreter(model_content=names["model"])
    (taken,) = lite.get_input_details()
    lite.resize_tensor_input(taken["index"], x[:1].shape)
    lite.allocate_tensors()
    results = []
    for item in x:
        lite.set_tensor(taken["index"], item[None])
        lite.invoke()
        results.append(lite.get_tensor(lite.get_output_details()[0]["index"])[0])
    return np.stack(results)


RUNNERS = {
    "tf.nn": in_tensorflow,
    "tf.keras.backend": in_tensorflow,
    "keras": frameworks.RUNNERS["keras"],
    "tflite": in_lite,
}


def main() -> None:
    """Compares, and says how many layers of which framework were equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    equal = dict.fromkeys(RUNNERS, 0)
    for _ in range(options.count):
        layer = random_layer(rng, int(rng.integers(1, 4)))
        lengths = tuple(map(int, rng.integers(1, 6, layer.rank)))
        x, filters, bias = (
            rng.integers(-4, 5, shape).astype(np.float32)
            for shape in ((2, *lengths, layer.in_channels), layer.filter_shape, (layer.out_channels,))
        )
        for name, runner in RUNNERS.items():
            framework = convert.FRAMEWORKS[name]
            if layer.rank not in framework.ranks:
                continue
            port = framework.write(layer)
            if min(*layer.output(lengths), *port.said.output(lengths)) < 1:
                continue
            got = runner(port, x, np.ascontiguousarray(port.weights(filters)), bias)
            want = layer(x, filters, bias if layer.bias else None)
            if got.shape != want.shape or not np.array_equal(got, want):
                sys.exit(f"{name} differs for {layer!r} of {lengths}:\n{port.code}")
            equal[name] += 1
    print("equal:", ", ".join(f"{name} {count}" for name, count in equal.items()))


if __name__ == "__main__":
    main()
