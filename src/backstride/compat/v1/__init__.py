# SPDX-License-Identifier: Apache-2.0
"""`tf.compat.v1`: the same functions under the names by which TensorFlow 2 documents them."""

from numpy import float16, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64

from backstride import initializers as initializers
from backstride import losses as losses
from backstride._activations import sigmoid, tanh
from backstride._programs import AUTO_REUSE, GraphKeys, VariableScope
from backstride._scopes import (
    add_to_collection,
    get_collection,
    get_variable,
    get_variable_scope,
    global_variables,
    reset_default_graph,
    set_random_seed,
    trainable_variables,
    variable_scope,
)
from backstride.compat.v1 import keras as keras
from backstride.compat.v1 import layers as layers
from backstride.compat.v1 import nn as nn
from backstride.initializers import (
    bilinear_initializer,
    constant_initializer,
    glorot_normal_initializer,
    glorot_uniform_initializer,
    he_normal_initializer,
    he_uniform_initializer,
    icnr_initializer,
    lecun_normal_initializer,
    lecun_uniform_initializer,
    ones_initializer,
    random_normal_initializer,
    random_uniform_initializer,
    truncated_normal_initializer,
    variance_scaling_initializer,
    zeros_initializer,
)

__all__ = [
    "AUTO_REUSE",
    "GraphKeys",
    "VariableScope",
    "add_to_collection",
    "bilinear_initializer",
    "constant_initializer",
    "float16",
    "float32",
    "float64",
    "get_collection",
    "get_variable",
    "get_variable_scope",
    "global_variables",
    "glorot_normal_initializer",
    "glorot_uniform_initializer",
    "he_normal_initializer",
    "he_uniform_initializer",
    "icnr_initializer",
    "int8",
    "int16",
    "int32",
    "int64",
    "lecun_normal_initializer",
    "lecun_uniform_initializer",
    "ones_initializer",
    "random_normal_initializer",
    "random_uniform_initializer",
    "reset_default_graph",
    "set_random_seed",
    "sigmoid",
    "tanh",
    "trainable_variables",
    "truncated_normal_initializer",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "variable_scope",
    "variance_scaling_initializer",
    "zeros_initializer",
]
