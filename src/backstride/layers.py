# SPDX-License-Identifier: Apache-2.0
"""Transposed convolutions with variables: `tf.layers.conv2d_transpose`, and layers as objects.

Variables belong to the current `VariableStore`, under the names that TensorFlow 1 gives them; see `variable_scope`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from backstride import _arguments, _backends, _named, _ops, nn
from backstride._arguments import Argument, Side, Window, shown
from backstride._geometry import Geometry, Layer
from backstride._packed import Plan, plan
from backstride._programs import GraphKeys, Loss, VariableScope
from backstride._scopes import checked, obtain, variable_scope
from backstride._variables import Variable, current
from backstride.initializers import zeros_initializer
from backstride.keras.backend import image_data_format
from backstride.nn import bias_add

__all__ = ["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", "conv2d_transpose"]

_ZEROS = zeros_initializer()
# The functions of this package that a plan computes.
_OWN = [name for name in _arguments.ACTIVATIONS if name in nn.__all__]


def conv2d_transpose(
    inputs: Any,
    filters: Any,
    kernel_size: Any,
    strides: Any = (1, 1),
    padding: Any = "valid",
    data_format: Any = "channels_last",
    activation: Any = None,
    use_bias: Any = True,
    kernel_initializer: Any = None,
    bias_initializer: Any = _ZEROS,
    kernel_regularizer: Any = None,
    bias_regularizer: Any = None,
    activity_regularizer: Any = None,
    kernel_constraint: Any = None,
    bias_constraint: Any = None,
    trainable: Any = True,
    name: Any = None,
    reuse: Any = None,
) -> Any:
    """The transposed convolution of `inputs` with variables, as `tf.layers.conv2d_transpose` documents it.

    >>> import numpy as np, backstride
    >>> image = np.ones((1, 16, 16, 3), np.float32)
    >>> with backstride.VariableStore():
    ...     result = backstride.layers.conv2d_transpose(image, 8, 4, strides=2, padding="same", name="up")
    ...     [variable.name for variable in backstride.trainable_variables()]
    ['up/kernel', 'up/bias']
    >>> result.shape
    (1, 32, 32, 8)

    Args:
        inputs: array `[batch, height, width, channels]`, or channels second for channels_first. Its dtype is that of
            the variables and of the result.
        filters: the number of output channels.
        kernel_size: one or two ints.
        strides: one or two ints.
        padding: 'valid' or 'same', in any case. An axis of length I becomes I * stride long with 'same', and
            I * stride + max(kernel_size - stride, 0) with 'valid'.
        data_format: 'channels_last' or 'channels_first', in any case; None is `image_data_format()`.
        activation: a function of the result, or a name such as 'relu'; None is linear.
        use_bias: whether a bias is added.
        kernel_initializer: a function of (shape, dtype) or the name of one of `initializers`. None is the scope's, or
            else glorot_uniform.
        bias_initializer: the same for the bias; None is no bias.
        kernel_regularizer, bias_regularizer: functions from the variable's value to a loss, or names such as 'l2'.
            The loss is in the collection REGULARIZATION_LOSSES once per variable.
        activity_regularizer: a function from the layer's result to a loss, which is divided by the batch size and
            collected at every call.
        kernel_constraint, bias_constraint: functions from the updated value to an allowed one of its shape, which
            `VariableStore.update` applies.
        trainable: whether the variables are in TRAINABLE_VARIABLES.
        name: the scope of the variables. None is conv2d_transpose, made unique in its scope.
        reuse: None, False, True or AUTO_REUSE: whether the variables may or must exist.

    Returns:
        Array of the dtype of `inputs`, `activation(conv2d_transpose(inputs, kernel) + bias)`, where `kernel` has the
        shape `[height, width, filters, channels]`.

    Raises:
        ValueError: an argument is not legal; a variable exists and may not, or does not and must, or has another
            shape or dtype.
        TypeError: an argument is of the wrong type.
    """
    if isinstance(_checked_name(name), str) and name:
        checked("name", name)
    scope = _opened(name) if name else None
    layer = Conv2DTranspose(
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        activation,
        use_bias,
        kernel_initializer,
        bias_initializer,
        kernel_regularizer,
        bias_regularizer,
        activity_regularizer,
        kernel_constraint,
        bias_constraint,
        trainable,
        name,
    )
    layer._scope, layer._reuse, layer._once = scope, reuse, True
    return layer(inputs)


class _Packed(NamedTuple):
    """A plan, what it was made from, and the function that is left to apply to its results."""

    values: list[np.ndarray]
    activation: Any
    plan: Plan
    rest: Any


class _ConvTranspose:
    """The layers of one, two and three axes, which differ in `rank` and `default_name` alone."""

    rank: ClassVar[int]
    default_name: ClassVar[str]

    def __init__(
        self,
        filters: Any,
        kernel_size: Any,
        strides: Any = 1,
        padding: Any = "valid",
        data_format: Any = "channels_last",
        activation: Any = None,
        use_bias: Any = True,
        kernel_initializer: Any = None,
        bias_initializer: Any = _ZEROS,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        trainable: Any = True,
        name: Any = None,
    ) -> None:
        self.filters = _arguments.filters(filters)
        self.kernel_size = _arguments.layer_ints("kernel_size", kernel_size, self.rank)
        self.strides = _arguments.layer_ints("strides", strides, self.rank)
        self.padding = _lower(padding)
        self.data_format = image_data_format() if data_format is None else _lower(data_format)
        self._window = Window(
            stride=self.strides,
            dilation=(1,) * self.rank,
            crop=_arguments.keras_crop(self.padding, self.rank),
            channels_first=_arguments.keras_channels_first(self.data_format),
            padding=shown(padding),
        )
        self._layer = Layer(self.kernel_size, self.strides, self._window.dilation, self._window.crop)
        self.activation = _named.activation("activation", activation)
        self.kernel_initializer = _named.initializer("kernel_initializer", kernel_initializer)
        self.bias_initializer = _named.initializer("bias_initializer", bias_initializer)
        self.use_bias = bool(use_bias) and bias_initializer is not None
        self.kernel_regularizer = _named.regularizer("kernel_regularizer", kernel_regularizer)
        self.bias_regularizer = _named.regularizer("bias_regularizer", bias_regularizer)
        self.activity_regularizer = _named.regularizer("activity_regularizer", activity_regularizer)
        self.kernel_constraint = _named.constraint("kernel_constraint", kernel_constraint)
        self.bias_constraint = _named.constraint("bias_constraint", bias_constraint)
        self.trainable = bool(trainable)
        self.name = _checked_name(name)
        self.kernel: Variable | None = None
        self.bias: Variable | None = None
        self._scope: VariableScope | None = None
        self._reuse: Any = None
        self._once = False  # whether there will be no second call, for which to keep a plan
        self._packed: _Packed | None = None

    def build(self, input_shape: Any) -> None:
        """Makes the variables, for inputs of this shape, of which the number of channels must be known, and float32.

        Once there are variables it makes no others.

        Raises:
            ValueError: it has another number of dimensions, other channels than the variables, or variables of these
                names exist that are not this layer's.
        """
        self._scope = self._called_in()
        self._build(self._sized(input_shape)[-1], None)

    def __call__(self, inputs: Any) -> Any:
        """The layer's result; the first call makes the variables, for the channels and the dtype of `inputs`."""
        return self.call(inputs)

    def call(self, inputs: Any) -> Any:
        """The same."""
        self._scope = self._called_in()
        (argument,) = _arguments.arrays(self.rank + 2, Argument("inputs", inputs))
        source = _arguments.side(argument, self._window)
        self._build(source.channels, argument.value)
        assert self.kernel is not None
        arrays = _arguments.arrays(self.rank + 2, argument, Argument("kernel", self.kernel))
        inputs, kernel = (array.value for array in arrays)
        activation = self.activation
        if (packed := self._current_plan(inputs)) is not None:
            result, activation = packed.plan(inputs), packed.rest
        else:
            result = _ops.derivative("output", self._geometry(source, arrays[1]), inputs, kernel)
            if self.bias is not None:
                result = bias_add(result, self.bias, "NC..." if self._window.channels_first else "N...C")
        if activation is not None:
            result = activation(result)
        if self.activity_regularizer is not None:
            self._collect_activity(result, source.batch)
        return result

    @property
    def variables(self) -> list[Variable]:
        """Kernel and bias, as far as there are any yet."""
        return [variable for variable in (self.kernel, self.bias) if variable is not None]

    @property
    def trainable_variables(self) -> list[Variable]:
        """The same, or none if the layer is not trainable."""
        return [variable for variable in self.variables if variable.trainable]

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The shape of the result for inputs of this shape; unknown dimensions are None in both."""
        batch, *spatial, _ = self._sized(input_shape)
        chosen = self._layer.chosen_output
        lengths = [None if length is None else chosen(n, length) for n, length in enumerate(spatial)]
        if self._window.channels_first:
            return batch, self.filters, *lengths
        return batch, *lengths, self.filters

    def __getstate__(self) -> dict[str, Any]:
        """What copies begin with: a store of their own, with these variables in it; the kernel is packed anew."""
        return self.__dict__ | {"_packed": None}

    def _called_in(self) -> VariableScope:
        """Its scope, which the first call finds. Each call opens it, which counts for the default names of others."""
        if self._scope is not None:
            return _opened(self._scope)
        base = (self.name.name if isinstance(self.name, VariableScope) else self.name) or self.default_name
        return _opened(base) if self._reuse else _opened(None, base)

    def _build(self, channels: Any, like: Any) -> None:
        """Makes or finds the variables at the first call; at others, makes them known to the current program."""
        if self.kernel is None:
            self._make_variables(channels, like)
        elif channels != self.kernel.shape[-1]:
            raise ValueError(f"`inputs` has {channels} channels; the layer was built for {self.kernel.shape[-1]}")
        for variable in self.variables:
            if variable.store is current().store:
                current().adopt(variable)

    def _make_variables(self, channels: Any, like: Any) -> None:
        if channels is None:
            raise ValueError("the number of channels in `input_shape` must be known; it is None")
        dtype = "float32" if like is None else _backends.of(like).dtype_name(like)
        assert self._scope is not None
        with variable_scope(self._scope, reuse=self._reuse) as scope:
            kernel = obtain(
                "kernel",
                (*self.kernel_size, self.filters, channels),
                dtype,
                self.kernel_initializer,
                trainable=self.trainable,
                constraint=self.kernel_constraint,
                regularizers=_present(scope.regularizer, self.kernel_regularizer),
                like=like,
            )
            bias = None
            if self.use_bias:
                bias = obtain(
                    "bias",
                    (self.filters,),
                    dtype,
                    self.bias_initializer,
                    trainable=self.trainable,
                    constraint=self.bias_constraint,
                    regularizers=_present(scope.regularizer, self.bias_regularizer),
                    like=like,
                )
        self.kernel, self.bias = kernel, bias

    def _current_plan(self, inputs: Any) -> _Packed | None:
        """A plan with the current values of the variables, unless autograd, or a run with other values, is at work.

        The arrays that a store holds are never written to, so the same arrays are the same values.
        """
        values = [variable.value for variable in self.variables]
        if self._once or not all(isinstance(array, np.ndarray) for array in (inputs, *values)):
            return None
        if any(variable.given for variable in self.variables):
            return None
        packed = self._packed
        if (
            packed is None
            or packed.activation is not self.activation
            or any(new is not old for new, old in zip(values, packed.values, strict=True))
        ):
            packed = self._packed = self._pack(*values)
        return packed

    def _pack(self, kernel: np.ndarray, bias: np.ndarray | None = None) -> _Packed:
        own = next((name for name in _OWN if getattr(nn, name) is self.activation), None)
        if own != "relu" and kernel.dtype.kind in "iu":
            own = None
        packed = plan(kernel, self.strides, self.padding, data_format=self.data_format, bias=bias, activation=own)
        values = [kernel] if bias is None else [kernel, bias]
        return _Packed(values, self.activation, packed, None if own else self.activation)

    def _collect_activity(self, result: Any, batch: int) -> None:
        assert self.activity_regularizer is not None and self._scope is not None
        loss = self.activity_regularizer(result)
        if loss is None:
            raise ValueError("`activity_regularizer` must return a loss; it returned None")
        mean = loss / batch if batch else loss * float("nan")
        entry = Loss(f"{self._scope.name}/ActivityRegularizer", lambda: mean)
        current().collect(GraphKeys.REGULARIZATION_LOSSES, entry)

    def _geometry(self, source: Side, kernel: Argument) -> Geometry:
        lengths = tuple(self._layer.chosen_output(n, length) for n, length in enumerate(source.lengths))
        result = Side("result", source.batch, lengths, self.filters)
        return _arguments.resolve(self._window, source, kernel, result)

    def _sized(self, input_shape: Any) -> Sequence[Any]:
        """A shape of inputs, with None where it is unknown, channels last."""
        lengths = _arguments.entries("input_shape", input_shape)
        if len(lengths) != self.rank + 2:
            raise ValueError(f"`input_shape` must have {self.rank + 2} entries; got input_shape={shown(input_shape)}")
        known = [None if length is None else _arguments.integer("input_shape", length) for length in lengths]
        if any(length is not None and length < 0 for length in known):
            raise ValueError(f"the entries of `input_shape` must be at least 0; got input_shape={shown(input_shape)}")
        return _arguments.channels_last(known) if self._window.channels_first else known


class Conv1DTranspose(_ConvTranspose):
    """The layer of one axis; see `Conv2DTranspose`.

    >>> import numpy as np, backstride
    >>> layer = backstride.layers.Conv1DTranspose(filters=2, kernel_size=4, strides=2, padding="same")
    >>> with backstride.VariableStore():
    ...     layer(np.ones((1, 100, 8), np.float32)).shape
    (1, 200, 2)
    """

    rank = 1
    default_name = "conv1d_transpose"


class Conv2DTranspose(_ConvTranspose):
    """`conv2d_transpose` as an object, as `tf.layers.Conv2DTranspose` documents it.

    It takes the arguments of the function, without `inputs` and `reuse`; every call shares its variables. A name is
    made unique in its scope. Calls on NumPy arrays go through a `backstride.plan`, which is made anew when a variable
    has been assigned.

    >>> import numpy as np, backstride
    >>> layer = backstride.layers.Conv2DTranspose(8, 4, strides=2, padding="same", activation="relu")
    >>> layer.compute_output_shape((None, 16, 16, 3))
    (None, 32, 32, 8)
    >>> with backstride.VariableStore():
    ...     layer(np.ones((1, 16, 16, 3), np.float32)).shape
    (1, 32, 32, 8)
    >>> layer.variables
    [<Variable 'conv2d_transpose/kernel' shape=(4, 4, 8, 3) dtype=float32>,
     <Variable 'conv2d_transpose/bias' shape=(8,) dtype=float32>]
    """

    rank = 2
    default_name = "conv2d_transpose"


class Conv3DTranspose(_ConvTranspose):
    """The layer of three axes; see `Conv2DTranspose`.

    >>> import numpy as np, backstride
    >>> layer = backstride.layers.Conv3DTranspose(filters=2, kernel_size=2, strides=2)
    >>> with backstride.VariableStore():
    ...     layer(np.ones((1, 4, 4, 4, 8), np.float32)).shape
    (1, 8, 8, 8, 2)
    """

    rank = 3
    default_name = "conv3d_transpose"


def _opened(name_or_scope: Any, default_name: str | None = None) -> VariableScope:
    """The scope that these arguments of `variable_scope` open."""
    with variable_scope(name_or_scope, default_name) as scope:
        return scope


def _checked_name(name: Any) -> Any:
    if not isinstance(name, str | VariableScope | None):
        raise TypeError(f"`name` must be a string or a scope object; got name={shown(name)}")
    return name


def _lower(value: Any) -> Any:
    """A name in lower case, if that is a legal one; what is refused is shown as it was given."""
    known = ("same", "valid", "channels_last", "channels_first")
    return value.lower() if isinstance(value, str) and value.lower() in known else value


def _present(*functions: Any) -> tuple[Any, ...]:
    return tuple(function for function in functions if function is not None)
