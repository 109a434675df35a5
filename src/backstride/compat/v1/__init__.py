# SPDX-License-Identifier: Apache-2.0
"""`tf.compat.v1`: the same functions under the names by which TensorFlow 2 documents them."""

from backstride.compat.v1 import keras as keras
from backstride.compat.v1 import nn as nn
