# SPDX-License-Identifier: Apache-2.0
"""JAX arrays and tracers: on CPUs the compiled core, called by XLA; elsewhere XLA's own convolution."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

from backstride import _native, _ops, _plan, _precision, _vmap
from backstride._backends import DTYPES, home, loaded, numpy
from backstride._geometry import Geometry, Operand

_TARGET = "backstride_derivative"


def asarray(name: str, value: Any) -> jax.Array:
    """A JAX array or tracer as it is, if its dtype would be accepted; anything else by way of a NumPy array."""
    if isinstance(value, jax.Array):
        if value.dtype.name not in DTYPES:
            raise TypeError(f"`{name}` has dtype {value.dtype}; it must be one of {', '.join(DTYPES)}")
        return value
    array = numpy.asarray(name, value)
    result = jnp.asarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    if result.dtype.name != array.dtype.name:
        raise TypeError(
            f"`{name}` has dtype {array.dtype}, of which JAX would make {result.dtype}; convert it with .astype, or "
            f"set jax_enable_x64"
        )
    return result


dtype_name = numpy.dtype_name
same_dtype = numpy.same_dtype
scalar = numpy.scalar


def astype(array: Any, dtype: str) -> jax.Array:
    """See `backstride._backends.Backend`."""
    result: jax.Array = array if dtype_name(array) == dtype else array.astype(dtype)
    return result


def derivative(wrt: Operand, geometry: Geometry, first: jax.Array, second: jax.Array) -> jax.Array:
    """See `backstride._ops.derivative`. The precision is that of the code that traces."""
    return _bind(wrt, geometry, first, second, _precision.current())


def _bind(wrt: Operand, geometry: Geometry, first: jax.Array, second: jax.Array, precision: str) -> jax.Array:
    numpy.check_size("the result", geometry.shape(wrt), first.dtype)
    arrays = _equally_varying(first, second)
    result: jax.Array = _derivative.bind(*arrays, wrt=wrt, geometry=geometry, precision=precision)
    return result


def _equally_varying(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays with the same axes of a mesh along which `shard_map` takes them to vary."""
    varying = [jax.typeof(array).mat.varying for array in arrays]
    union = frozenset().union(*varying)
    return [
        jax.lax.pcast(array, tuple(sorted(union - own)), to="varying") if union - own else array
        for array, own in zip(arrays, varying, strict=True)
    ]


_derivative = Primitive("backstride_derivative")
_compiled = jax.jit(_derivative.bind, static_argnames=("wrt", "geometry", "precision"))


def _eager(first: jax.Array, second: jax.Array, **described: Any) -> Any:
    """The result of one call by itself, which is compiled under `jax.disable_jit`, too: nothing else computes."""
    with jax.disable_jit(False):
        return _compiled(first, second, **described)


_derivative.def_impl(_eager)


def _shaped(first: Any, second: Any, *, wrt: Operand, geometry: Geometry, precision: str) -> Any:
    """The result without numbers: as the first operand is in all but shape and sharding."""
    return first.update(shape=geometry.shape(wrt), sharding=_sharding(wrt, geometry, first, second))


def _sharding(wrt: Operand, geometry: Geometry, first: Any, second: Any) -> NamedSharding:
    """That of the result along explicit axes of a mesh: a batch is sharded as the operands' is, and nothing else."""
    splits = [_split(operand, array) for operand, array in zip(_ops.given(wrt), (first, second), strict=True)]
    if wrt == "filter" and splits[0] != splits[1]:
        raise ValueError(
            f"arrays of shape {first.shape} and {second.shape} have one batch, which is sharded along {splits[0]} of a "
            f"mesh in one and along {splits[1]} in the other; jax.sharding.reshard makes them agree"
        )
    batch = None if wrt == "filter" else splits[0] or splits[1]
    mesh = (second if first.sharding.mesh.empty else first).sharding.mesh
    return NamedSharding(mesh, PartitionSpec(batch, *(None,) * (len(geometry.shape(wrt)) - 1)))


def _split(operand: Operand, array: Any) -> Any:
    """The explicit axes of a mesh along which the batch of an operand is sharded; the filter has no batch."""
    spec = array.sharding.spec
    batch = None if operand == "filter" else spec[0]
    if spec != PartitionSpec(batch, *(None,) * (len(array.shape) - 1)):
        raise ValueError(
            f"an array of shape {array.shape} is sharded as {spec}; along explicit axes of a mesh only a batch can be "
            f"(jax.sharding.reshard changes it)"
        )
    return batch


_derivative.def_abstract_eval(_shaped)


def _transpose(index: int) -> Any:
    """The function from cotangents of the result to those of operand `index` of the two given."""

    def pull_back(
        cotangent: Any, first: Any, second: Any, *, wrt: Operand, geometry: Geometry, precision: str
    ) -> jax.Array:
        by = _ops.given(wrt)[index]
        return _bind(*_ops.transpose(wrt, by, geometry, first, second, cotangent), precision)

    return pull_back


ad.defbilinear(_derivative, _transpose(0), _transpose(1))


def _batch(arrays: Any, axes: Any, *, wrt: Operand, geometry: Geometry, precision: str) -> tuple[jax.Array, int]:
    call = functools.partial(_bind, precision=precision)
    return _vmap.mapped(call, jnp.moveaxis, wrt, geometry, arrays, axes), 0


batching.primitive_batchers[_derivative] = _batch


def by_lax(first: jax.Array, second: jax.Array, *, wrt: Operand, geometry: Geometry, precision: str) -> jax.Array:
    """The derivative by XLA's own convolution, of which no precision needs more than that of 'strict'."""
    dtype = first.dtype
    if _empty(geometry):
        return jnp.zeros(geometry.shape(wrt), dtype)
    sharding = _sharding(wrt, geometry, jax.typeof(first), jax.typeof(second))
    names = "DHW"[3 - len(geometry.axes) :]
    data = f"NC{names}" if geometry.channels_first else f"N{names}C"
    stride, dilation = (tuple(getattr(axis, name) for axis in geometry.axes) for name in ("stride", "dilation"))
    if wrt == "output":
        arrays, layouts = (first, _flipped(second, geometry)), (data, f"{names}OI", data)
        padding = [
            ((a.kernel - 1) * a.dilation - a.pad, a.output - 1 + a.pad - (a.input - 1) * a.stride)
            for a in geometry.axes
        ]
        window: dict[str, Any] = {"window_strides": (1,) * len(names), "lhs_dilation": stride, "rhs_dilation": dilation}
        window |= {"feature_group_count": geometry.groups}
    else:
        arrays = second, first
        padding = [
            (a.pad, (a.input - 1) * a.stride + (a.kernel - 1) * a.dilation + 1 - a.output - a.pad)
            for a in geometry.axes
        ]
        if wrt == "input":
            layouts = data, f"{names}IO", data
            window = {"window_strides": stride, "rhs_dilation": dilation, "feature_group_count": geometry.groups}
        else:  # the input is the filter of the output, and the batch is summed over as channels are elsewhere
            layouts = data.translate(_SWAPPED), data.translate(_BATCH_AS_CHANNELS), f"{names}NC"
            window = {"window_strides": dilation, "rhs_dilation": stride, "batch_group_count": geometry.groups}
    result = jax.lax.conv_general_dilated(
        *arrays,
        padding=padding,
        dimension_numbers=layouts,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=dtype if dtype.kind in "iu" else jnp.promote_types(dtype, jnp.float32),
        out_sharding=None if sharding.mesh.empty else sharding,
        **window,
    )
    return result.astype(dtype)


def _empty(geometry: Geometry) -> bool:
    """Whether there is nothing to multiply, or no result."""
    return any(0 in geometry.shape(operand) for operand in _ops.OPERANDS)


_SWAPPED = str.maketrans("NC", "CN")
_BATCH_AS_CHANNELS = str.maketrans("NC", "IO")


def _flipped(filter: jax.Array, geometry: Geometry) -> jax.Array:
    """The filter in reverse along its axes, and with the output channels of all groups along one axis, where XLA looks
    for them."""
    filter = jnp.flip(filter, range(len(geometry.axes)))
    *kernel, out_channels, in_channels = filter.shape
    filter = filter.reshape((*kernel, out_channels, geometry.groups, in_channels // geometry.groups))
    return jnp.moveaxis(filter, -2, -3).reshape((*kernel, out_channels * geometry.groups, -1))


_lower_to_lax = mlir.lower_fun(by_lax, multiple_results=False)
_lower_to_target = jax.ffi.ffi_lowering(_TARGET)


def _lower_on_cpu(ctx: Any, first: Any, second: Any, *, wrt: Operand, geometry: Geometry, precision: str) -> Any:
    if without_core is not None or _empty(geometry):
        return _lower_to_lax(ctx, first, second, wrt=wrt, geometry=geometry, precision=precision)
    described = _plan.description(wrt, geometry, numpy.element(ctx.avals_in[0].dtype), precision)
    described["axes"] = np.array(described["axes"], np.int64)
    attributes = {name: np.int64(n) if type(n) is int else n for name, n in described.items()}
    return _lower_to_target(ctx, first, second, **attributes)


def _register() -> str | None:
    """Makes the core known to XLA; returns why it is not, if so. What XLA refuses would keep JAX from its devices."""
    target = _native.xla_target()
    if target is None:
        return "backstride was built without jaxlib's headers"
    stages, built = target
    served = _interface()
    if served[:1] != built[:1] or served < built:
        return f"backstride was built for version {built} of XLA's foreign function interface, and jaxlib has {served}"
    jax.ffi.register_ffi_target(_TARGET, stages)
    return None


def _interface() -> tuple[int, ...]:
    """The version of XLA's foreign function interface that this jaxlib has, which only its headers tell."""
    header = (Path(jax.ffi.include_dir()) / "xla/ffi/api/c_api.h").read_text()
    return tuple(int(number) for number in re.findall(r"#define XLA_FFI_API_(?:MAJOR|MINOR) (\d+)", header))


without_core = _register()
"""None if the core computes on CPUs; else why XLA's own convolution does."""

mlir.register_lowering(_derivative, _lower_to_lax)
mlir.register_lowering(_derivative, _lower_on_cpu, platform="cpu")


namespace = jnp


def leaky_relu(x: jax.Array, alpha: float) -> jax.Array:
    """See `backstride._backends.Backend`."""
    return jnp.where(x > 0, x, alpha * x) if alpha else jax.nn.relu(x)


def elu(x: jax.Array, alpha: float) -> jax.Array:
    """See `backstride._backends.Backend`. A gradient goes through both sides of `where`, and must not be NaN there."""
    return jnp.where(x >= 0, x, alpha * jnp.expm1(jnp.where(x >= 0, 0, x)))


erfc = jax.scipy.special.erfc
exp = jnp.exp
softplus = functools.partial(jnp.logaddexp, 0)


def clip(x: jax.Array, high: float) -> jax.Array:
    """See `backstride._backends.Backend`."""
    return jnp.where((x > 0) & (x < high), x, jax.lax.stop_gradient(jnp.clip(x, 0, high)).astype(x.dtype))


def like(name: str, value: Any, template: Any) -> jax.Array:
    """See `backstride._backends.Backend`. The numbers of a tracer are not known, so that of it the dtype is checked.

    Others make an array at once, also in code that JAX traces: a tracer must not outlive it, and a store does.
    """
    if (library := home(value)) not in ("jax", "numpy"):
        raise TypeError(f"the variable {name!r} holds JAX arrays; got an array of {library} (convert it first)")
    if not isinstance(value, jax.core.Tracer):
        array = numpy.like(name, to_numpy(value) if isinstance(value, jax.Array) else value, template)
        with jax.ensure_compile_time_eval():
            return jnp.asarray(array)
    if value.dtype.kind != template.dtype.kind and template.dtype.kind in "iu":
        raise TypeError(f"the variable {name!r} holds {template.dtype}; got {value.dtype}")
    return value.astype(template.dtype)


def assigned(held: jax.Array, new: jax.Array) -> jax.Array:
    """See `backstride._backends.Backend`."""
    return new


def to_numpy(value: jax.Array) -> np.ndarray:
    """See `backstride._backends.Backend`."""
    return np.asarray(value)


def lent(name: str, array: jax.Array) -> np.ndarray:
    """See `backstride._backends.Backend`."""
    if isinstance(array, jax.core.Tracer):
        raise TypeError(f"`{name}` is traced by JAX, and a plan has no gradient; use nn.conv2d_transpose")
    return to_numpy(array)


def given_back(result: np.ndarray) -> jax.Array:
    """See `backstride._backends.Backend`."""
    return jnp.asarray(result)


borrowed = numpy.borrowed


loaded(__name__)
