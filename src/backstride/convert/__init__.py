# SPDX-License-Identifier: Apache-2.0
"""Layers moved between frameworks, to the pixel.

A `ConvTranspose` describes a transposed convolution as every framework means it. `from_torch` and its kin make one of a
framework's own arguments; `to_torch` and its kin make a `Port` of it: the arguments that say the same there, what is
left to be cut of the result where no arguments do, the filter in the framework's order, and code to paste.

>>> from backstride import convert
>>> layer = convert.from_keras(3, 5, strides=2, padding="same", in_channels=16)
>>> for note in convert.to_torch(layer).notes:
...     print(note)
torch has no arguments for this layer: cut 1 pixel at the end of the height, cut 1 pixel at the end of the width.
The usual recipe, padding=2, output_padding=1, has the right length and is shifted by 1 pixel up and 1 pixel left.
torch takes arrays with channels first.

`FRAMEWORKS` has all of them by name. None is imported here: arguments are numbers, and weights are arrays of any
library that the package knows.
"""

from backstride.convert._files import load, save
from backstride.convert._jax import (
    EQUINOX,
    GENERAL,
    HAIKU,
    LAX,
    LINEN,
    NNX,
    from_conv_general_dilated,
    from_equinox,
    from_flax_linen,
    from_flax_nnx,
    from_haiku,
    from_lax,
    to_conv_general_dilated,
    to_equinox,
    to_flax_linen,
    to_flax_nnx,
    to_haiku,
    to_lax,
)
from backstride.convert._keras import KERAS, from_keras, to_keras
from backstride.convert._layer import ConvTranspose
from backstride.convert._named_layer import NamedLayer
from backstride.convert._onnx import ONNX, from_onnx, to_onnx
from backstride.convert._port import Framework, Port, Usual
from backstride.convert._tensorflow import (
    KERAS_BACKEND,
    TF_LAYERS,
    TF_NN,
    TFLITE,
    from_keras_backend,
    from_tf_layers,
    from_tf_nn,
    from_tflite,
    to_keras_backend,
    to_tf_layers,
    to_tf_nn,
    to_tflite,
)
from backstride.convert._torch import CANDLE, MLX, TORCH, from_candle, from_mlx, from_torch, to_candle, to_mlx, to_torch
from backstride.convert._weights import LAYOUTS, Layout

FRAMEWORKS = {
    framework.name: framework
    for framework in (
        TF_NN,
        TF_LAYERS,
        KERAS_BACKEND,
        KERAS,
        TORCH,
        LAX,
        GENERAL,
        LINEN,
        NNX,
        HAIKU,
        EQUINOX,
        ONNX,
        TFLITE,
        MLX,
        CANDLE,
    )
}

__all__ = [
    "FRAMEWORKS",
    "LAYOUTS",
    "ConvTranspose",
    "Framework",
    "Layout",
    "NamedLayer",
    "Port",
    "Usual",
    "from_candle",
    "from_conv_general_dilated",
    "from_equinox",
    "from_flax_linen",
    "from_flax_nnx",
    "from_haiku",
    "from_keras",
    "from_keras_backend",
    "from_lax",
    "from_mlx",
    "from_onnx",
    "from_tf_layers",
    "from_tf_nn",
    "from_tflite",
    "from_torch",
    "load",
    "save",
    "to_candle",
    "to_conv_general_dilated",
    "to_equinox",
    "to_flax_linen",
    "to_flax_nnx",
    "to_haiku",
    "to_keras",
    "to_keras_backend",
    "to_lax",
    "to_mlx",
    "to_onnx",
    "to_tf_layers",
    "to_tf_nn",
    "to_tflite",
    "to_torch",
]
