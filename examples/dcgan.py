# SPDX-License-Identifier: Apache-2.0
"""The decoder of a DCGAN generator (Radford, Metz and Chintala, 2015) as a TensorFlow 1 script has it.

Only the import differs: it was `import tensorflow as tf`. The function is then run on the arrays of other libraries,
with the weights that were saved: `python dcgan.py jax torch`.
"""

import sys

import numpy as np

import backstride as tf


def generator(z, reuse=None):
    """Images of 64x64 pixels from `z`, the projected and reshaped noise: `[batch, 4, 4, channels]`."""
    init = tf.random_normal_initializer(stddev=0.02)
    with tf.variable_scope("generator", reuse=reuse):
        net = tf.layers.conv2d_transpose(z, 256, 5, 2, padding="same", kernel_initializer=init, name="up1")
        net = tf.nn.relu(net)
        net = tf.layers.conv2d_transpose(net, 128, 5, 2, padding="same", kernel_initializer=init, name="up2")
        net = tf.nn.relu(net)
        net = tf.layers.conv2d_transpose(net, 64, 5, 2, padding="same", kernel_initializer=init, name="up3")
        net = tf.nn.relu(net)
        net = tf.layers.conv2d_transpose(net, 3, 5, 2, padding="same", kernel_initializer=init, name="up4")
        return tf.tanh(net)


tf.reset_default_graph()
tf.set_random_seed(0)
noise = np.random.default_rng(0).standard_normal((16, 4, 4, 512), np.float32)
images = generator(noise)
again = generator(noise, reuse=True)
variables = tf.trainable_variables()


def in_jax(noise, weights):
    """The images by a compiled function of JAX."""
    import jax

    store = tf.VariableStore()
    store.load(weights)
    return jax.jit(tf.jax.transform(generator).apply)(store.values(), noise)


def in_torch(noise, weights):
    """The images by a module of PyTorch."""
    import torch

    module = tf.torch.module(generator)
    module.load(weights)
    with torch.inference_mode():
        return module(torch.from_numpy(noise))


LIBRARIES = {"jax": in_jax, "torch": in_torch}

if __name__ == "__main__":
    for variable in variables:
        print(variable.name, variable.shape)
    print("images", images.shape, "between", images.min(), "and", images.max())
    variables[0].store.save("dcgan.npz")
    for library in sys.argv[1:]:
        theirs = np.asarray(LIBRARIES[library](noise, "dcgan.npz"))
        print(library, "differs by at most", abs(theirs - images).max())
