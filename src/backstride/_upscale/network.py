# SPDX-License-Identifier: Apache-2.0
"""The network, written as a TensorFlow 1 script would be: functions of arrays, variables by name.

After FSRCNN (Dong, Loy and Tang, "Accelerating the Super-Resolution Convolutional Neural Network"): all layers but
the last work on the small image, and one transposed convolution enlarges.
"""

from __future__ import annotations

from typing import Any

import backstride as tf

CHANNELS = 32
MAPPINGS = 4

# How far a pixel of the small image is seen: by a kernel of 5, four of 3, and a head that overlaps its neighbours.
REACH = 2 + MAPPINGS + 1


def detail(luma: Any, scale: int) -> Any:
    """What bicubic enlargement misses of `luma`, `[batch, height, width, 1]` of 0..1, at `scale` times its size."""
    features = convolution(luma - 0.5, 5, "features")
    shrunk = x = convolution(features, 1, "shrink")
    for n in range(MAPPINGS):
        x = convolution(x, 3, f"map_{n}")
    x = convolution(x, 1, "expand") + shrunk
    return tf.layers.conv2d_transpose(
        x,
        filters=1,
        kernel_size=3 * scale,
        strides=scale,
        padding="same",
        use_bias=False,
        kernel_initializer=tf.random_normal_initializer(stddev=1e-3),
        name="head",
    )


def convolution(x: Any, size: int, name: str) -> Any:
    """A convolution to `CHANNELS`, a bias, and leaky ReLU."""
    with tf.variable_scope(name):
        he = tf.variance_scaling_initializer(scale=2.0)
        kernel = tf.get_variable("kernel", [size, size, x.shape[-1], CHANNELS], initializer=he)
        bias = tf.get_variable("bias", [CHANNELS], initializer=tf.zeros_initializer())
    return tf.nn.leaky_relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, strides=1, padding="SAME"), bias))
