# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's transposed convolution, to the pixel, without TensorFlow.

The documented functions are at their documented places: `backstride.nn.conv2d_transpose`,
`backstride.compat.v1.nn.conv2d_transpose`, `backstride.layers.conv2d_transpose` and
`backstride.keras.backend.conv2d_transpose`. What `layers` needs around it has TensorFlow 1's names, so that a script's
decoder runs after `import backstride as tf`.
"""

import importlib
from typing import Any

from backstride import _settings
from backstride import compat as compat
from backstride import constraints as constraints
from backstride import initializers as initializers
from backstride import keras as keras
from backstride import layers as layers
from backstride import losses as losses
from backstride import nn as nn
from backstride import regularizers as regularizers
from backstride._packed import Plan, plan
from backstride._precision import precision
from backstride._settings import get_num_threads, release_memory, set_num_threads, show_config
from backstride._stream import Stream
from backstride._variables import Run, Variable, VariableStore
from backstride.compat.v1 import *  # noqa: F403
from backstride.compat.v1 import __all__ as _tf

__version__ = "0.1.0"
__all__ = [
    *_tf,
    "Plan",
    "Run",
    "Stream",
    "Variable",
    "VariableStore",
    "compat",
    "constraints",
    "get_num_threads",
    "initializers",
    "keras",
    "layers",
    "losses",
    "nn",
    "plan",
    "precision",
    "regularizers",
    "release_memory",
    "set_num_threads",
    "show_config",
]

_settings.read_environment()


def __getattr__(name: str) -> Any:
    """The modules for other libraries, once they are asked for."""
    if name in ("convert", "jax", "torch"):
        return importlib.import_module(f"backstride.{name}")
    raise AttributeError(f"module 'backstride' has no attribute {name!r}")
