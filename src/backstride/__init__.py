# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's transposed convolution, to the pixel, without TensorFlow.

The documented functions are at their documented places: `backstride.nn.conv2d_transpose`,
`backstride.compat.v1.nn.conv2d_transpose` and `backstride.keras.backend.conv2d_transpose`.
"""

from backstride import _settings
from backstride import compat as compat
from backstride import keras as keras
from backstride import nn as nn
from backstride._settings import get_num_threads, set_num_threads, show_config

__version__ = "0.1.0"
__all__ = ["compat", "get_num_threads", "keras", "nn", "set_num_threads", "show_config"]

_settings.read_environment()
