# SPDX-License-Identifier: Apache-2.0
"""Activations as `tf.nn` defines them, of the names by which `tf.keras.activations` knows them."""

from __future__ import annotations

import functools
import math
from typing import Any

from backstride import _backends
from backstride._arguments import shown
from backstride._variables import plain

__all__ = [
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "leaky_relu",
    "linear",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]

# Klambauer et al. (2017), whose fixed point has mean 0 and variance 1.
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def relu(features: Any, name: Any = None) -> Any:
    """`max(x, 0)`, as `tf.nn.relu`. NaN stays NaN; the derivative at 0 is 0.

    >>> import backstride
    >>> backstride.nn.relu([-1.0, 2.0])
    array([0., 2.], dtype=float32)

    Args:
        features: array of any real dtype.
        name: ignored.
    """
    return leaky_relu(features, 0)


def leaky_relu(features: Any, alpha: float = 0.2, name: Any = None) -> Any:
    """`x` where it is positive, elsewhere `alpha * x`, as `tf.nn.leaky_relu`.

    >>> import backstride
    >>> backstride.nn.leaky_relu([-1.0, 2.0])
    array([-0.2,  2. ], dtype=float32)

    Args:
        features: array of floats; of any real dtype if `alpha` is 0.
        alpha: the slope of the negative side.
        name: ignored.
    """
    x, backend = _array(features, floats=alpha != 0)
    return backend.leaky_relu(x, alpha)


def relu6(features: Any, name: Any = None) -> Any:
    """`min(max(x, 0), 6)`, as `tf.nn.relu6`.

    >>> import backstride
    >>> backstride.nn.relu6([-1.0, 2.0, 8.0])
    array([0., 2., 6.], dtype=float32)

    Args:
        features: array of any real dtype.
        name: ignored.
    """
    x, backend = _array(features, floats=False)
    return backend.clip(x, 6)


def elu(features: Any, name: Any = None) -> Any:
    """`x` where it is positive, elsewhere `exp(x) - 1`, as `tf.nn.elu`.

    >>> import backstride
    >>> backstride.nn.elu([-1.0, 2.0]).round(4)
    array([-0.6321,  2.    ], dtype=float32)

    Args:
        features: array of floats.
        name: ignored.
    """
    x, backend = _array(features)
    return backend.elu(x, 1)


def selu(features: Any, name: Any = None) -> Any:
    """The scaled exponential linear unit, as `tf.nn.selu`.

    >>> import backstride
    >>> backstride.nn.selu([-1.0, 2.0]).round(4)
    array([-1.1113,  2.1014], dtype=float32)

    Args:
        features: array of floats.
        name: ignored.
    """
    x, backend = _array(features)
    return backend.scalar(x, _SELU_SCALE) * backend.elu(x, _SELU_ALPHA)


def gelu(features: Any, approximate: bool = False, name: Any = None) -> Any:
    """`x * P(N <= x)` for a standard normal N, as `tf.nn.gelu`; or, if `approximate`, near it.

    >>> import backstride
    >>> backstride.nn.gelu([-1.0, 2.0]).round(4)
    array([-0.1587,  1.9545], dtype=float32)

    Args:
        features: array of floats.
        approximate: whether to compute with a tanh, which is within 0.0005 of it.
        name: ignored.
    """
    x, backend = _array(features)
    real = functools.partial(backend.scalar, x)
    if approximate:
        inner = real(math.sqrt(2 / math.pi)) * (x + real(0.044715) * x * x * x)
        return real(0.5) * x * (1 + backend.namespace.tanh(inner))
    return real(0.5) * x * backend.erfc(real(-math.sqrt(0.5)) * x)


def softplus(features: Any, name: Any = None) -> Any:
    """`log(1 + exp(x))`, as `tf.nn.softplus`, without overflow.

    >>> import backstride
    >>> backstride.nn.softplus([-1.0, 2.0]).round(4)
    array([0.3133, 2.1269], dtype=float32)

    Args:
        features: array of floats.
        name: ignored.
    """
    x, backend = _array(features)
    return backend.softplus(x)


def softsign(features: Any, name: Any = None) -> Any:
    """`x / (1 + abs(x))`, as `tf.nn.softsign`.

    >>> import backstride
    >>> backstride.nn.softsign([-1.0, 3.0])
    array([-0.5 ,  0.75], dtype=float32)

    Args:
        features: array of floats.
        name: ignored.
    """
    x, backend = _array(features)
    return x / (1 + backend.namespace.abs(x))


def sigmoid(x: Any, name: Any = None) -> Any:
    """`1 / (1 + exp(-x))`, as `tf.sigmoid`, without overflow.

    >>> import backstride
    >>> backstride.nn.sigmoid([-1.0, 0.0, 200.0]).round(4)
    array([0.2689, 0.5   , 1.    ], dtype=float32)

    Args:
        x: array of floats.
        name: ignored.
    """
    x, backend = _array(x)
    return backend.namespace.exp(-softplus(-x))


def tanh(x: Any, name: Any = None) -> Any:
    """The hyperbolic tangent, as `tf.tanh`.

    >>> import backstride
    >>> backstride.nn.tanh([-1.0, 0.0]).round(4)
    array([-0.7616,  0.    ], dtype=float32)

    Args:
        x: array of floats.
        name: ignored.
    """
    x, backend = _array(x)
    return backend.namespace.tanh(x)


def silu(features: Any, name: Any = None) -> Any:
    """`x * sigmoid(x)`, as `tf.nn.silu`, which is also called swish.

    >>> import backstride
    >>> backstride.nn.silu([-1.0, 2.0]).round(4)
    array([-0.2689,  1.7616], dtype=float32)

    Args:
        features: array of floats.
        name: ignored.
    """
    x, _ = _array(features)
    return x * sigmoid(x)


swish = silu


def mish(features: Any, name: Any = None) -> Any:
    """`x * tanh(softplus(x))`, as `tf.keras.activations.mish`.

    >>> import backstride
    >>> backstride.nn.mish([-1.0, 2.0]).round(4)
    array([-0.3034,  1.944 ], dtype=float32)

    Args:
        features: array of floats.
        name: ignored.
    """
    x, _ = _array(features)
    return x * tanh(softplus(x))


def hard_sigmoid(x: Any) -> Any:
    """`0.2 * x + 0.5`, cut to 0 and 1, as `tf.keras.activations.hard_sigmoid`.

    >>> import backstride
    >>> backstride.nn.hard_sigmoid([-9.0, 1.0]).round(4)
    array([0. , 0.7], dtype=float32)

    Args:
        x: array of floats.
    """
    x, backend = _array(x)
    return backend.clip(backend.scalar(x, 0.2) * x + backend.scalar(x, 0.5), 1)


def exponential(x: Any) -> Any:
    """`exp(x)`, as `tf.keras.activations.exponential`.

    >>> import backstride
    >>> backstride.nn.exponential([0.0])
    array([1.], dtype=float32)

    Args:
        x: array of floats.
    """
    x, backend = _array(x)
    return backend.exp(x)


def linear(x: Any) -> Any:
    """`x`.

    >>> import backstride
    >>> backstride.nn.linear([1.0])
    [1.0]

    Args:
        x: anything.
    """
    return x


def softmax(logits: Any, axis: int = -1, name: Any = None) -> Any:
    """`exp(x) / sum(exp(x))` along `axis`, as `tf.nn.softmax`, without overflow.

    >>> import backstride
    >>> backstride.nn.softmax([0.0, 0.0])
    array([0.5, 0.5], dtype=float32)

    Args:
        logits: array of floats.
        axis: along which results sum to 1.
        name: ignored.
    """
    x, backend = _array(logits)
    xp = backend.namespace
    powers = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return powers / xp.sum(powers, axis=axis, keepdims=True)


def _array(value: Any, floats: bool = True) -> tuple[Any, _backends.Backend]:
    """`value` as an array, of floats if it must be, and the file of its library."""
    value = plain(value)
    if value is None or _backends.home(value) is None:
        raise TypeError(f"activations take a NumPy array or a list of numbers; got {type(value).__qualname__}")
    backend = _backends.of(value)
    array = backend.asarray("features", value)
    if floats and "float" not in backend.dtype_name(array):
        raise TypeError(f"this activation takes floats; got dtype {array.dtype} in {shown(value)}")
    return array, backend
