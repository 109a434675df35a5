# SPDX-License-Identifier: Apache-2.0
"""Geometries to test with: named ones, each for a reason, and hypothesis strategies for any."""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import reference
from hypothesis import strategies as st

from backstride._geometry import Axis, Geometry

OPERANDS = ("input", "filter", "output")

# So small that a float32 sum of 2**20 products of them is exact.
LARGEST = 3


def given(wrt: str) -> list[str]:
    """The two operands which the derivative by `wrt` takes."""
    return [operand for operand in OPERANDS if operand != wrt]


@dataclass(frozen=True)
class Case:
    """A named geometry."""

    name: str
    geometry: Geometry

    def __str__(self) -> str:
        return self.name

    @property
    def channels_first(self) -> Case:
        return replace(self, geometry=replace(self.geometry, channels_first=True))

    def integers(self, operand: str, dtype: Any) -> np.ndarray:
        """An operand of small integers, always the same."""
        return integers(self.geometry, operand, dtype)

    def exact(self, wrt: str) -> np.ndarray:
        """The derivative by `wrt` of the operands of small integers, as Python has it: int64 and exact."""
        return exact(self.geometry, wrt)


def integers(geometry: Geometry, operand: str, dtype: Any) -> np.ndarray:
    """An operand of small integers, the same for one geometry in both layouts but for their order."""
    rng = np.random.default_rng([zlib.crc32(operand.encode()), geometry.batch, geometry.in_channels])
    last = replace(geometry, channels_first=False).shape(operand)
    array = rng.integers(-LARGEST, LARGEST, last, endpoint=True)
    if geometry.channels_first and operand != "filter":
        array = np.ascontiguousarray(np.moveaxis(array, -1, 1))
    return array.astype(dtype)


@functools.cache
def exact(geometry: Geometry, wrt: str) -> np.ndarray:
    result = reference.derivative(wrt, *(integers(geometry, name, np.int64) for name in given(wrt)), geometry)
    assert abs(result).max(initial=0) < 2**24, "a float32 sum of these integers would not be exact"
    result.flags.writeable = False
    return result


def same(input: int, kernel: int, stride: int, output: int, dilation: int = 1) -> Axis:
    """An axis with SAME's crop."""
    pad = reference.pad_before(input, output, kernel, stride, dilation, None)
    return Axis(input, kernel, output, stride, dilation, pad)


def valid(input: int, kernel: int, stride: int, extra: int = 0, dilation: int = 1) -> Axis:
    """An axis with VALID's crop, none, and so many cells after the last stamp."""
    return Axis(input, kernel, (input - 1) * stride + (kernel - 1) * dilation + 1 + extra, stride, dilation, 0)


def case(name: str, *axes: Axis, channels: tuple[int, int] = (5, 4), batch: int = 2, groups: int = 1) -> Case:
    """A case with `channels` (input, output)."""
    return Case(name, Geometry(axes, batch, *channels, groups))


POINT = Axis(1, 1, 1)

# Networks, reduced in size but not in shape.
NETWORKS = [
    case("fcn-k4-s2", same(5, 4, 2, 10), same(6, 4, 2, 12), channels=(21, 21), batch=1),
    case("fcn-k4-s2-odd", same(5, 4, 2, 9), same(6, 4, 2, 11), channels=(21, 21), batch=1),
    case("fcn-k16-s8", same(3, 16, 8, 24), same(4, 16, 8, 29), channels=(2, 3), batch=1),
    case("dcgan-k5-s2", same(4, 5, 2, 8), same(4, 5, 2, 8), channels=(48, 24), batch=3),
    case("dcgan-to-rgb", same(8, 5, 2, 16), same(8, 5, 2, 16), channels=(16, 3), batch=2),
    case("pix2pix-k4-s2", same(6, 4, 2, 12), same(6, 4, 2, 12), channels=(24, 40), batch=1),
    case("pix2pix-from-one-pixel", same(1, 4, 2, 2), same(1, 4, 2, 2), channels=(40, 40), batch=1),
    case("unet-k2-s2", same(5, 2, 2, 10), same(7, 2, 2, 14), channels=(20, 12), batch=1),
    case("autoencoder-k3-s2", same(7, 3, 2, 14), same(7, 3, 2, 14), channels=(12, 6), batch=3),
    case("stride-1-k3", same(6, 3, 1, 6), same(9, 3, 1, 9), channels=(10, 18)),
    case("wavegan-k25-s4", same(9, 25, 4, 36), channels=(20, 17), batch=3),
    case("fsrcnn-k9-s3", same(4, 9, 3, 12), same(5, 9, 3, 15), channels=(7, 1), batch=1),
]

# Where a formula or a loop has its edge.
EDGES = [
    case("k-less-than-s", valid(4, 2, 3), valid(3, 1, 4, extra=3)),
    case("k-less-than-s-same", same(3, 2, 3, 7), same(4, 1, 2, 8)),
    case("k-wider-than-image", same(2, 9, 1, 2), same(3, 7, 2, 6)),
    case("k-in-chunks", same(13, 8, 1, 13), same(8, 7, 2, 15), channels=(18, 20)),
    case("k-in-chunks-and-groups", same(10, 11, 3, 29), same(7, 5, 1, 7), channels=(10, 6), groups=2),
    case("k-much-wider-than-image", same(1, 33, 2, 2), same(2, 5, 1, 2)),
    case("k-equals-s", valid(4, 3, 3), valid(3, 2, 2)),
    case("anisotropic", same(3, 2, 3, 8), valid(5, 4, 1), batch=1),
    case("zeros-after", valid(3, 3, 4, extra=3), valid(4, 3, 5, extra=4)),
    case("dilation", same(6, 3, 1, 6, dilation=2), valid(5, 4, 1, dilation=3)),
    case("dilation-prime-to-stride", same(5, 4, 3, 14, dilation=2), valid(4, 5, 2, dilation=3)),
    case("dilation-divides-stride", valid(5, 4, 4, extra=3, dilation=2), same(4, 5, 6, 22, dilation=3)),
    case("dilation-equals-stride", valid(4, 5, 3, dilation=3), same(5, 3, 2, 10, dilation=2)),
    case("stride-divides-dilation", valid(5, 4, 2, extra=1, dilation=4), same(4, 3, 3, 11, dilation=6)),
    case("dilation-and-stride-share-2", valid(5, 5, 4, dilation=6), same(6, 4, 6, 33, dilation=4)),
    case("dilation-wider-than-image", same(3, 3, 1, 3, dilation=7), same(4, 2, 2, 8, dilation=9)),
    case("huge-stride", same(2, 3, 1000, 2000), same(1, 2, 2**61, 4), channels=(2, 3), batch=1),
    case("huge-dilation", Axis(3, 2, 5, 1, 2**61, 0), Axis(2, 3, 6, 2, 1000, 1000), batch=1),
    case("crop-beyond-the-kernel", Axis(6, 3, 5, 2, 1, 4), Axis(5, 2, 3, 3, 1, 7)),
    case("crop-beyond-everything", Axis(3, 3, 5, 2, 1, 20), Axis(4, 3, 6, 1, 1, 1)),
    case("negative-crop", Axis(4, 3, 15, 2, 1, -3), Axis(3, 2, 12, 3, 2, -1)),
    case("negative-crop-beyond-output", Axis(4, 3, 5, 2, 1, -5), Axis(3, 2, 6, 2, 1, 0)),
    case("short-output", Axis(6, 3, 2, 2, 1, 5), Axis(7, 4, 1, 3, 1, 9)),
    case("unreached-rows-and-columns", Axis(3, 1, 12, 4, 1, -1), Axis(3, 2, 14, 5, 2, 0), batch=3),
    case("1x1", Axis(5, 1, 5), Axis(4, 1, 4)),
    case("1x1-s2", Axis(5, 1, 10, 2), Axis(4, 1, 7, 2)),
    case("single-pixel", POINT, POINT, channels=(70, 40), batch=1),
    case("single-pixel-batch", POINT, POINT, channels=(6, 9), batch=37),
    case("single-channel", same(7, 4, 2, 14), same(9, 4, 2, 17), channels=(1, 1), batch=1),
    case("narrow-image", same(40, 3, 2, 80), POINT, channels=(3, 6)),
    case("wide-image", POINT, same(75, 3, 2, 150), channels=(3, 6), batch=1),
    case("many-images", same(60, 3, 2, 120), POINT, channels=(3, 5), batch=300),
    case("batch-longest", same(2, 3, 2, 4), same(1, 3, 2, 2), channels=(9, 5), batch=33),
]

RANKS = [
    case("1d", same(50, 5, 2, 100), channels=(6, 7)),
    case("1d-long", valid(3000, 4, 2), channels=(2, 2), batch=1),
    case("1d-long-stride-1", same(9001, 2, 1, 9001), channels=(1, 2), batch=1),
    case("1d-one-cell", valid(1, 7, 3), channels=(3, 18)),
    case("3d", same(3, 3, 2, 6), same(4, 3, 2, 7), same(3, 3, 2, 5), channels=(6, 5)),
    case("3d-mixed", valid(2, 2, 3, extra=1), same(3, 4, 1, 3, dilation=2), Axis(3, 3, 9, 2, 2, -1)),
    case("3d-deep", same(9, 3, 1, 9), POINT, same(2, 2, 2, 4), batch=1),
]

GROUPS = [
    case("groups-2", same(4, 3, 2, 8), same(3, 3, 2, 6), channels=(6, 10), groups=2),
    case("groups-3-wide", same(3, 3, 1, 3), same(4, 2, 2, 8), channels=(51, 99), groups=3, batch=1),
    case("depthwise", same(5, 3, 2, 10), same(4, 3, 2, 8), channels=(13, 13), groups=13),
    case("depthwise-multiplier", same(3, 3, 1, 3), same(4, 3, 1, 4), channels=(4, 12), groups=4),
    case("depthwise-wide", same(5, 4, 2, 10), same(19, 3, 2, 38), channels=(70, 70), groups=70),
    case("depthwise-1d", same(40, 4, 3, 119), channels=(33, 33), groups=33),
    case("groups-fewer-outputs", valid(3, 2, 2), valid(3, 4, 2), channels=(36, 4), groups=2),
    case("groups-1d", same(30, 4, 3, 89), channels=(8, 4), groups=4),
]

# Results of so few columns that pixels take the lanes, each with another end of a loop.
FEW = [
    case("few-channels", same(6, 5, 2, 12), same(70, 5, 2, 139), channels=(37, 3), batch=1),
    case("few-channels-small-images", same(4, 4, 2, 8), same(5, 4, 2, 10), channels=(16, 3), batch=23),
    case("few-channels-wide", POINT, same(5000, 4, 3, 15000), channels=(2, 1), batch=1),
    case("few-channels-stride-1", same(5, 3, 1, 5), same(130, 7, 1, 130), channels=(18, 1)),
    case("few-channels-all-streams", valid(3, 2, 3, extra=1), valid(33, 3, 4, extra=3), channels=(9, 3)),
    case("few-channels-groups", same(3, 3, 2, 6), same(20, 3, 2, 40), channels=(34, 6), groups=2),
    case("few-channels-negative-crop", Axis(4, 3, 15, 2, 1, -3), Axis(9, 3, 31, 2, 1, -5), channels=(8, 2)),
    case("few-channels-crop", Axis(4, 3, 5, 2, 1, 4), Axis(40, 5, 60, 2, 1, 9), channels=(8, 2)),
    case("few-channels-dilated-rows", same(9, 3, 2, 18, dilation=3), same(12, 6, 3, 36), channels=(8, 2)),
    case("few-channels-rows-in-parts", same(5, 9, 4, 20), same(40, 9, 4, 160), channels=(5, 1)),
    case("few-channels-many-rows", same(3, 40, 30, 90), same(20, 4, 2, 40), channels=(3, 2), batch=1),
    case("few-channels-rows-without-taps", valid(4, 2, 5, extra=3), same(20, 3, 2, 40), channels=(7, 1), batch=1),
    case("few-channels-deep", same(5, 5, 2, 10), same(6, 5, 2, 12), same(18, 3, 2, 36), channels=(6, 1), batch=1),
    case("few-channels-3d", same(3, 3, 2, 6), same(4, 3, 2, 7), same(18, 3, 2, 36), channels=(17, 2)),
]

# Around the widths of tiles, as columns of the output (out channels) and of the input gradient (in channels).
WIDTHS = (1, 3, 15, 16, 17, 31, 32, 33, 64, 65, 100)
CHANNELS = [
    case(f"channels-{n}-to-{m}", valid(3, 2, 1), valid(5, 2, 2, extra=1), channels=(n, m), batch=1)
    for n, m in zip(WIDTHS, WIDTHS[4:] + WIDTHS[:4], strict=True)
]

# Of several blocks, panels or steps; too large for the reference.
LARGER = [
    case("blocks", same(70, 5, 2, 140), same(90, 4, 2, 180), channels=(24, 40)),
    case("blocks-of-images", same(6, 4, 2, 12), same(5, 3, 2, 10), channels=(70, 50), batch=90),
    case("blocks-3d", same(9, 3, 2, 18), same(20, 3, 2, 39), same(30, 3, 1, 30), channels=(12, 35), batch=1),
    case("blocks-dilated", same(300, 3, 1, 300, dilation=90), same(40, 3, 2, 80, dilation=3), channels=(40, 33)),
    case("blocks-k-less-than-s", valid(90, 2, 5), valid(60, 2, 3, extra=2), channels=(20, 36)),
    case("blocks-negative-crop", Axis(80, 3, 175, 2, 1, -7), Axis(60, 4, 100, 2, 1, 9), channels=(33, 20)),
    case("blocks-groups", same(50, 3, 2, 100), same(60, 3, 2, 120), channels=(48, 60), groups=3),
    case("blocks-depthwise", same(50, 3, 2, 100), same(40, 4, 2, 80), channels=(300, 300), groups=300),
    case("blocks-few-channels", same(64, 5, 2, 128), same(80, 5, 2, 160), channels=(40, 3), batch=3),
    case("blocks-one-channel", same(200, 3, 2, 400), same(150, 3, 2, 300), channels=(1, 1)),
    case("panels", same(4, 4, 2, 8), same(5, 4, 2, 10), channels=(80, 300), batch=1),
    case("steps", same(30, 2, 2, 60), same(40, 3, 2, 80), channels=(300, 130)),
    case("steps-of-large-arrays", same(250, 1, 1, 250), same(300, 2, 2, 600), channels=(9, 18)),
]

GEOMETRIES = NETWORKS + EDGES + RANKS + GROUPS + FEW + CHANNELS

# A few of every sort, for tests in which a geometry takes long.
SELECTED = [
    each
    for each in GEOMETRIES
    if str(each)
    in {
        "fcn-k4-s2-odd",
        "autoencoder-k3-s2",
        "zeros-after",
        "dilation-prime-to-stride",
        "crop-beyond-the-kernel",
        "negative-crop",
        "1d",
        "3d-mixed",
        "groups-2",
        "channels-32-to-100",
    }
]
assert len(SELECTED) == 10
assert len({str(each) for each in GEOMETRIES}) == len(GEOMETRIES)


@st.composite
def axes(draw: st.DrawFn, longest: int = 6) -> Axis:
    """Any axis of the core: the output may have any length, the crop any sign and size."""
    input, kernel = draw(st.integers(1, longest)), draw(st.integers(1, longest))
    stride, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    span = (input - 1) * stride + (kernel - 1) * dilation + 1
    pad = draw(st.integers(-3, span))
    return Axis(input, kernel, draw(st.integers(1, max(1, span - pad + 3))), stride, dilation, pad)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Any geometry of the core, small enough for the reference."""
    rank = draw(st.integers(1, 3))
    chosen = tuple(draw(axes((9, 6, 3)[rank - 1])) for _ in range(rank))
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    into, out = (groups * draw(st.one_of(st.integers(1, 6), st.integers(14, 36))) for _ in "io")
    return Geometry(chosen, draw(st.integers(1, 3)), into, out, groups, draw(st.booleans()))


@dataclass(frozen=True)
class Call:
    """A legal call of the public functions: sizes in the words of their arguments."""

    input: tuple[int, ...]
    kernel: tuple[int, ...]
    output: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str
    batch: int
    in_channels: int
    out_channels: int
    channels_first: bool

    @property
    def rank(self) -> int:
        return len(self.input)

    @property
    def data_format(self) -> str:
        axes = {1: "W", 2: "HW", 3: "DHW"}[self.rank]
        return f"NC{axes}" if self.channels_first else f"N{axes}C"

    @property
    def output_shape(self) -> list[int]:
        return list(self.geometry.shape("output"))

    @property
    def geometry(self) -> Geometry:
        """The sized form of the call, derived from the definition rather than by the library."""
        sizes = zip(self.input, self.output, self.kernel, self.strides, self.dilations, strict=True)
        crop = None if self.padding == "SAME" else (0, 0)
        axes = (Axis(i, k, o, s, d, reference.pad_before(i, o, k, s, d, crop)) for i, o, k, s, d in sizes)
        return Geometry(tuple(axes), self.batch, self.in_channels, self.out_channels, 1, self.channels_first)

    def integers(self, operand: str, dtype: Any = np.float32) -> np.ndarray:
        return integers(self.geometry, operand, dtype)


@st.composite
def calls(draw: st.DrawFn, ranks: tuple[int, ...] = (1, 2, 3)) -> Call:
    """Any legal call, over every legal output length."""
    rank, padding = draw(st.sampled_from(ranks)), draw(st.sampled_from(("SAME", "VALID")))
    longest = (12, 5, 3)[rank - 1]
    sizes = [
        (
            draw(st.integers(1, longest)),
            draw(st.integers(1, longest)),
            draw(st.integers(1, 4)),
            draw(st.integers(1, 3)),
        )
        for _ in range(rank)
    ]
    crop = None if padding == "SAME" else (0, 0)
    output = tuple(draw(st.sampled_from(reference.legal_lengths(*size, crop))) for size in sizes)
    input, kernel, strides, dilations = zip(*sizes, strict=True)
    batch, into, out = draw(st.integers(1, 3)), draw(st.integers(1, 19)), draw(st.integers(1, 19))
    return Call(input, kernel, output, strides, dilations, padding, batch, into, out, draw(st.booleans()))
