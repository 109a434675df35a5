# SPDX-License-Identifier: Apache-2.0
"""`backstride explain`: its numbers against loops of stamps, its tables, its options, its pictures."""

from __future__ import annotations

import ast
import functools
import io
import json
import xml.dom.minidom
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner, Result

from backstride import convert
from backstride._command import app
from backstride._explain import png
from backstride._explain.arithmetic import Along, along, padding_of, resized
from backstride._explain.explanation import document, explanation
from backstride._explain.paste import pasted
from backstride._explain.picture import picture
from backstride._explain.report import COLUMNS, tables
from backstride._explain.scene import Scene, Words, mixed, shade, svg
from backstride._explain.spelling import Options, read
from backstride._explain.verdict import verdict
from backstride.convert import ConvTranspose

GOLDEN = Path(__file__).parent / "golden" / "explain"
DOCS = Path(__file__).parent.parent / "docs"


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app.app, ["explain", *arguments])


def said(*arguments: str) -> str:
    result = command(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: str) -> str:
    result = command(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("backstride: ")


def words(layer: ConvTranspose, input: Any) -> str:
    """The report at 80 columns."""
    console = Console(file=io.StringIO(), width=COLUMNS, highlight=False)
    for table in tables(explanation(layer, input)):
        console.print(table, soft_wrap=isinstance(table, Text))
    return console.file.getvalue()


# Arithmetic

axes = st.builds(
    Along,
    input=st.integers(1, 7),
    kernel=st.integers(1, 9),
    stride=st.integers(1, 6),
    dilation=st.integers(1, 4),
    before=st.integers(-3, 5),
    after=st.integers(-3, 5),
)


@given(axes)
def test_taps_are_those_whose_stamps_reach_a_cell(axis: Along) -> None:
    full = [[] for _ in range((axis.input - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1)]
    for input in range(axis.input):
        for tap in range(axis.kernel):
            full[input * axis.stride + tap * axis.dilation].append((tap, input))
    assert axis.full == len(full)
    assert axis.output == max(len(full) - axis.before - axis.after, 0)
    for cell in range(axis.output):
        place = cell + axis.before
        reached = sorted(full[place]) if 0 <= place < len(full) else []
        assert [(tap, axis.source(cell, tap)) for tap in axis.taps(cell)] == reached
        assert [*axis.phase(cell)] == [
            tap for tap in range(axis.kernel) if (tap * axis.dilation - place) % axis.stride == 0
        ]
        if cell in axis.interior:
            assert axis.taps(cell) == axis.phase(cell)
    counts = [len(axis.phase(residue)) for residue in range(axis.stride)]
    assert (axis.fewest, axis.most) == (min(counts), max(counts))


@given(axes, st.sampled_from(["SAME", "VALID", "explicit"]))
def test_legal_lengths_are_those_that_a_convolution_takes_back(axis: Along, padding: Any) -> None:
    """To the length of the input, by TensorFlow's documentation of SAME, VALID and explicit pairs."""

    def back(length: int) -> int:
        if padding == "SAME":
            return -(-length // axis.stride)
        more = axis.before + axis.after if padding == "explicit" else 0
        return (length + more - axis.extent) // axis.stride + 1 if length + more >= axis.extent else 0

    longest = axis.full + axis.stride + abs(axis.before) + abs(axis.after)
    expected = [length for length in range(longest) if back(length) == axis.input]
    assert [*axis.legal(padding)] == expected
    for length in expected:
        sized = axis.sized(padding, length)
        assert (sized.output, sized.full) == (length, axis.full)
        assert (
            sized.before
            == {
                "SAME": max(axis.full - length, 0) // 2,
                "VALID": 0,
                "explicit": axis.before,
            }[padding]
        )


@pytest.mark.parametrize("extent", [2**31 - 1, 1024])
def test_large_numbers_take_no_time(extent: int) -> None:
    layer = ConvTranspose(extent, extent // 4, 1, ((7, -3),))
    explained = explanation(layer, 10**6)
    assert len(json.dumps(document(explained), allow_nan=False)) < 10**6
    assert picture(layer, 10**6).items


def test_a_length_is_chosen_among_the_legal_ones() -> None:
    same = convert.from_keras(3, 5, strides=2, padding="same")
    assert resized(same, 16, 31, "SAME").crop == ((2, 2), (2, 2))
    with pytest.raises(ValueError, match=r"`output` height 33 does not fit: an input of 16 .* lengths 31 to 32"):
        resized(same, 16, 33, "SAME")


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "kind", "counts"),
    [
        ((5, 5), 2, 1, "uneven", (4, 9)),
        ((4, 4), 2, 1, "even", (4, 4)),
        ((16,), 8, 1, "even", (2, 2)),
        ((25,), 4, 1, "uneven", (6, 7)),
        ((3,), 1, 2, "one phase", (3, 3)),
        ((2,), 3, 1, "holes", (0, 1)),
        ((4, 4), 2, 2, "holes", (0, 16)),
        ((6,), 3, 2, "even", (2, 2)),
    ],
)
def test_verdict(kernel: tuple[int, ...], stride: int, dilation: int, kind: str, counts: tuple[int, int]) -> None:
    found = verdict(along(ConvTranspose(kernel, stride, dilation), 16))
    assert (found.kind, (found.fewest, found.most)) == (kind, counts)
    advice = " ".join(found.advice)
    assert ("divisible" in advice) == any(length % stride for length in kernel)
    assert ("dilation" in advice) == (kind == "holes" and dilation > 1)
    assert ("icnr" in advice) == (kind in ("even", "uneven") and dilation == 1)


@pytest.mark.parametrize(
    ("name", "kernel", "stride", "rank", "shift"),
    [
        ("DCGAN", 5, 2, 2, 1),
        ("DeepLabCut", 3, 2, 2, 1),
        ("FSRCNN", 9, 4, 2, 2),
        ("WaveGAN", 25, 4, 1, 2),
        ("EnCodec", 16, 8, 1, 0),
    ],
)
def test_the_shift_of_the_usual_recipe(name: str, kernel: int, stride: int, rank: int, shift: int) -> None:
    options = ("--kernel", str(kernel), "--stride", str(stride), "--padding", "same", "--rank", str(rank))
    usual = json.loads(said(*options, "--json"))["frameworks"]["torch"]["usual"]
    assert usual["shift"] == [shift] * rank
    row = next(line for line in said(*options, "--to", "torch").splitlines() if line.startswith("  padding="))
    ways = [f"{shift} {way}" for way in ("up", "left")[-rank:]] if shift else ["0"]
    assert row.split()[2:] == [*", ".join(ways).split(), "torch"]


# Tables


def test_the_report() -> None:
    layer = convert.from_keras(3, 5, strides=2, padding="same", in_channels=16, rank=1)
    text = words(layer, 16)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "(16 - 1) * 2 + (5 - 1) * 1 + 1 = 35",
        "cut 1 before, 2 after",
        "result 35 - 1 - 2 = 32",
        "SAME 31 2 2",
        "SAME 32 1 2 this layer",
        "VALID 35 0 0",
        "VALID 36 0 -1 zeros are added",
        "0 1 3 2",
        "1 0 2 4 3",
        "all cells 1 2 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 2",
        "Uneven: cells inside sum 2 to 3 taps by turns, like a checkerboard.",
        "- Take a kernel divisible by the stride, 4 or 6: the counts are then equal.",
        "padding=2, output_padding=1 1 left torch, mlx, candle",
        "layer = torch.nn.ConvTranspose1d(16, 3, 5, stride=2, padding=1)",
        "tflite has transposed convolutions in 2-D only; got one in 1-D",
        "arithmetic 7.68 kFLOP, two for each multiply-add of the definition",
        "memory input 1 KiB, filter 960 B, result 384 B",
    ):
        assert line in lines, line
    assert "time here some us, the call itself, expected of backstride.plan with" in " ".join(text.split())
    assert " ms expected of backstride.plan" in words(convert.from_keras(256, 5, strides=2, in_channels=256), 128)


LAYERS = st.integers(1, 3).flatmap(
    lambda rank: st.builds(
        lambda kernel, stride, dilation, crop, groups, first, bias: ConvTranspose(
            kernel, stride, dilation, crop, 2 * groups, 4 * groups, groups, first, bias
        ),
        *(
            st.lists(st.sampled_from(values), min_size=rank, max_size=rank)
            for values in ([1, 2, 3, 4, 5, 9, 25, 1024], [1, 2, 3, 8, 256], [1, 1, 2, 3])
        ),
        st.lists(
            st.tuples(*[st.integers(-6, 9) | st.just(10**6) | st.just(-(10**6))] * 2), min_size=rank, max_size=rank
        ),
        st.sampled_from([1, 2]),
        st.booleans(),
        st.booleans(),
    )
)


@functools.cache
def font(size: float) -> Any:
    return ImageFont.load_default(size * 4)


def fits(scene: Scene) -> bool:
    """Whether all words are in the picture, in Pillow's font."""
    for item in scene.items:
        if isinstance(item, Words):
            length = font(item.size).getlength(item.text) / 4
            left = item.x - {"start": 0, "middle": length / 2, "end": length}[item.anchor]
            if not (item.text.isascii() and left >= 0 and left + length <= scene.width and item.y <= scene.height):
                return False
    return True


@given(LAYERS, st.lists(st.sampled_from([1, 2, 3, 5, 7, 16, 10**6]), min_size=3, max_size=3))
def test_every_layer_can_be_told_and_drawn(layer: ConvTranspose, input: Sequence[int]) -> None:
    input = tuple(input[: layer.rank])
    assert max(map(len, words(layer, input).splitlines())) <= COLUMNS
    assert json.loads(json.dumps(document(explanation(layer, input)), allow_nan=False))["output"] == [
        *layer.output(input)
    ]
    scene = picture(layer, input)
    assert fits(scene)
    text = svg(scene)
    assert len(text) < 400_000
    xml.dom.minidom.parseString(text)


@pytest.mark.parametrize("name", ["tf.nn", "tf.keras.backend", "keras", "torch", "onnx", "tflite", "mlx"])
def test_code_is_the_same_in_lines_that_fit(name: str) -> None:
    code = convert.FRAMEWORKS[name].write(ConvTranspose((5, 3), (2, 3), (1, 2), ((1, 2), (-1, 0)), 8, 8, 2)).code
    assert max(map(len, pasted(code))) <= COLUMNS
    assert ast.dump(ast.parse("\n".join(pasted(code)))) == ast.dump(ast.parse(code))


def test_lines_break_only_within_brackets() -> None:
    long = "a" * 50
    assert pasted(f"let x = f({long}, '(, {long}', {{ y }})?;") == [
        f"let x = f({long},",
        f"    '(, {long}', {{ y }})?;",
    ]
    assert pasted(f"{long}, y = {long}") == [f"{long}, y = {long}"]
    assert pasted(f"x = f({long}, 1)  # or so, if it is to be, of that") == [
        "# or so, if it is to be, of that",
        f"x = f({long}, 1)",
    ]


# Options


@pytest.mark.parametrize(
    ("options", "crop"),
    [
        (("--padding", "same"), (1, 2)),
        ((), (1, 2)),
        (("--padding", "same", "--output", "31"), (2, 2)),
        (("--padding", "VALID"), (0, 0)),
        (("--padding", "1,2"), (1, 2)),
        (("--padding=-1,2",), (-1, 2)),
        (("--padding", "1,2", "--output", "33"), (1, 1)),
        (("--from", "torch", "--pad", "2", "--output-padding", "1"), (2, 1)),
        (("--from", "torch", "--pad", "2", "--output", "32"), (2, 1)),
        (("--from", "pytorch", "--pad", "2"), (2, 2)),
        (("--from", "mlx", "--pad", "2"), (2, 2)),
        (("--from", "candle", "--pad", "2"), (2, 2)),
        (("--from", "keras", "--padding", "same", "--output-padding", "0"), (2, 2)),
        (("--from", "keras", "--padding", "same", "--output", "31"), (2, 2)),
        (("--from", "tf.layers", "--padding", "same"), (1, 2)),
        (("--from", "tf.keras.backend", "--padding", "same", "--output", "31"), (2, 2)),
        (("--from", "tf", "--padding", "1,2"), (1, 2)),
        (("--from", "tflite", "--padding", "same", "--output-shape", "31"), (2, 2)),
        (("--from", "jax", "--padding", "same"), (1, 2)),
        (("--from", "jax", "--padding", "3,2"), (1, 2)),
        (("--from", "jax", "--padding", "1,2", "--use-consistent-padding"), (1, 2)),
        (("--from", "jax.lax.conv_general_dilated", "--padding", "3,2"), (1, 2)),
        (("--from", "flax", "--padding", "same"), (1, 2)),
        (("--from", "nnx", "--padding", "2"), (2, 2)),
        (("--from", "haiku", "--output", "31"), (2, 2)),
        (("--from", "equinox", "--padding", "1,2"), (1, 2)),
        (("--from", "onnx", "--pads", "1,1,2,2"), (1, 2)),
        (("--from", "onnx", "--pads", "1,2"), (1, 2)),
        (("--from", "onnx", "--auto-pad", "SAME_UPPER"), (1, 2)),
        (("--from", "onnx", "--auto-pad", "SAME_LOWER"), (2, 1)),
        (("--from", "onnx", "--output-shape", "32"), (2, 1)),
    ],
)
def test_frameworks_own_arguments(options: tuple[str, ...], crop: tuple[int, int]) -> None:
    told = json.loads(said("--kernel", "5", "--stride", "2", *options, "--to", "torch", "--json"))
    assert told["layer"]["crop"] == [[*crop]] * 2
    assert told["input"] == [16, 16]


@pytest.mark.parametrize("name", convert.FRAMEWORKS)
def test_every_framework_can_be_read(name: str) -> None:
    padding = "0" if name in ("torch", "mlx", "candle", "onnx", "equinox") else "valid"
    if name == "jax.lax.conv_general_dilated":
        padding = "3"  # zeros around the spread input, which is how it says that nothing is cut
    layer, input, _ = read(Options("4", "8", stride="2", padding=padding), name)
    assert layer.crop == ((0, 0), (0, 0))
    assert (layer.kernel, layer.stride, input) == ((4, 4), (2, 2), (8, 8))


def test_axes_channels_and_groups() -> None:
    options = ("--kernel", "5x4", "--input", "16x20", "--stride", "2", "--padding", "1,2x0,1", "--dilation", "1x2")
    channels = ("--groups", "2", "--in-channels", "4", "--out-channels", "6", "--channels-first", "--no-bias")
    told = json.loads(said(*options, *channels, "--to", "torch,onnx", "--json"))
    assert told["layer"] == {
        "kernel": [5, 4],
        "stride": [2, 2],
        "dilation": [1, 2],
        "crop": [[1, 2], [0, 1]],
        "in_channels": 4,
        "out_channels": 6,
        "groups": 2,
        "channels_first": True,
        "bias": False,
    }
    assert [*told["frameworks"]] == ["torch", "onnx"]
    assert [axis["name"] for axis in told["axes"]] == ["height", "width"]
    assert told["cost"]["flops"] == 2 * 16 * 20 * 5 * 4 * 4 * 6 // 2
    assert told["cost"]["filter"] == 5 * 4 * 3 * 4 * 4
    assert told["cost"]["seconds"] > 0
    for axis, one in zip(told["axes"], along(ConvTranspose(**told["layer"]), (16, 20)), strict=True):
        counts = [len(one.taps(cell)) for cell in range(one.output)]
        assert axis["overlap"]["first"] == axis["overlap"]["last"] == counts
        assert counts[slice(*axis["overlap"]["inside"])] == [
            axis["phases"][cell % 2]["count"] for cell in range(*axis["overlap"]["inside"])
        ]
    for rank in "123":
        assert len(json.loads(said("--kernel", "3", "--rank", rank, "--json"))["input"]) == int(rank)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "explain takes --kernel and what else is known of a layer, or a file with layers, MODEL"),
        (("a.onnx", "--kernel", "5"), "explain takes --kernel and what else"),
        (("a.onnx", "--stride", "2"), "--stride is for --kernel; MODEL says it itself"),
        (("--kernel", "5", "--layer", "up"), "--layer is for a file, MODEL"),
        (("--kernel", "5y"), "--kernel must be a number, or one for each axis such as 5x4; got '5y'"),
        (("--kernel", "5x4", "--stride", "2x3x1"), "--kernel must be a number, or one for each axis such as 5x4x6"),
        (("--kernel", "0"), "must be a positive int"),
        (("--kernel", "5", "--stride", "0"), "must be positive"),
        (("--kernel", "5", "--input", "0"), "`input` must be at least 1 along each axis"),
        (("--kernel", "5", "--stride", "2", "--output", "40"), "`output` height 40 does not fit"),
        (("--kernel", "5", "--padding", "some"), "--padding must be same, valid, or numbers of cells"),
        (("--kernel", "5", "--padding", "1,2;3"), "--padding must be a name such as same, a number, a pair"),
        (("--kernel", "5", "--padding", "1,2,3"), "--padding must have one number or two for each axis"),
        (("--kernel", "5", "--output-padding", "1"), "--output-padding is not TensorFlow's; say whose it is by --from"),
        (("--kernel", "5", "--groups", "3", "--in-channels", "4"), "`groups` must divide `in_channels`"),
        (("--kernel", "5", "--from", "torch", "--pad", "same"), "`padding` takes ints; got padding='SAME'"),
        (("--kernel", "5", "--from", "torch", "--output-padding", "1"), "must be below the stride or the dilation"),
        (("--kernel", "5", "--from", "jax"), "jax.lax.conv_transpose has no default padding; give it --padding"),
        (("--kernel", "5", "--from", "flax", "--groups", "2"), "flax.linen has no --groups; it has --in-channels"),
        (("--kernel", "5", "--from", "flax", "--channels-first"), "flax.linen takes channels last only"),
        (("--kernel", "5x4", "--from", "candle"), "candle has one `kernel` for both axes"),
        (("--kernel", "5", "--rank", "1", "--from", "tflite"), "tflite has transposed convolutions in 2-D only"),
        (
            ("--kernel", "5", "--from", "onnx", "--groups", "3", "--in-channels", "4"),
            "--groups must divide --in-channels",
        ),
        (("--kernel", "5", "--from", "caffe"), "no framework is called 'caffe' here; there are tf.nn, "),
        (("--kernel", "5", "--to", "torch,caffe"), "no framework is called 'caffe' here; there are tf.nn, "),
        (("--kernel", "5", "--png", "a.jpg"), "--png takes a name that ends in .png, not 'a.jpg'"),
        (("--kernel", "5", "--svg", "/nowhere/a.svg"), "cannot write to '/nowhere/a.svg': No such file or directory"),
    ],
)
def test_bad_options_are_one_line(options: tuple[str, ...], message: str) -> None:
    assert message in refusal(*options)


class Found(NamedTuple):
    name: str
    layer: ConvTranspose


def test_layers_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = [
        Found("up1", convert.from_keras(8, 5, strides=2, padding="same", in_channels=16)),
        Found("up2", convert.from_torch(8, 3, 4, stride=2, padding=1)),
    ]
    monkeypatch.setattr(convert, "load", lambda path, config: found if path.stem == "model" else [], raising=False)
    lines = said("model.onnx", "--input", "8", "--to", "torch").splitlines()
    assert [line for line in lines if line in ("up1", "up2")] == ["up1", "up2"]
    assert lines.count("Height and width: 8 to 16") == 2
    told = json.loads(said("model.onnx", "--json", "--to", "torch"))
    assert (told["file"], [layer["name"] for layer in told["layers"]]) == ("model.onnx", ["up1", "up2"])
    assert told["layers"][1]["output"] == [32, 32]
    assert said("model.onnx", "--layer", "up2", "--svg", str(tmp_path / "a.svg")).startswith("up2\n")
    assert (tmp_path / "a.svg").read_text() == svg(picture(found[1].layer, 16))
    assert refusal("model.onnx", "--svg", "a.svg") == "a picture is of one layer; give --layer one of up1, up2"
    assert refusal("model.onnx", "--layer", "up3") == "'model.onnx' has no layer 'up3'; it has up1, up2"
    assert refusal("other.onnx") == "'other.onnx' has no transposed convolutions"


def test_a_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "load", lambda path, config: path.read_bytes(), raising=False)
    assert refusal("nothing.onnx") == "cannot read 'nothing.onnx': No such file or directory"


# Pictures

PICTURES = {
    "k5-s2": (convert.from_keras(1, 5, strides=2, padding="same", rank=1), 4),
    "k5-s2-long": (convert.from_keras(1, 5, strides=2, padding="same", rank=1), 16),
    "k3-s3-d2-zeros": (ConvTranspose(3, 3, 2, ((-2, -1),)), 3),
    "k1024-s256": (convert.from_keras(1, 1024, strides=256, padding="same", rank=1), 16),
    "k4x3-s2": (ConvTranspose((4, 3), 2, 1, ((1, 1), (0, 1))), 3),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_the_recorded_ones(name: str) -> None:
    """Which have been looked at. After a change that is meant: look at the new ones, and record them, by
    `python tests/test_explain.py`."""
    assert svg(picture(*PICTURES[name])) == (GOLDEN / f"{name}.svg").read_text()


@pytest.mark.parametrize(("name", "kernel"), [("explain-1d", (5,)), ("explain-2d", (5, 5))])
def test_pictures_of_the_documentation_are_current(name: str, kernel: tuple[int, ...]) -> None:
    layer = convert.from_keras(1, kernel, strides=2, padding="same")
    assert svg(picture(layer, 4)) == (DOCS / f"{name}.svg").read_text()


def test_pictures_are_files(tmp_path: Path) -> None:
    drawn, sketched = tmp_path / "a.png", tmp_path / "a.svg"
    said("--kernel", "5", "--stride", "2", "--input", "4", "--png", str(drawn), "--svg", str(sketched))
    scene = picture(convert.from_keras(1, 5, strides=2, padding="same"), 4)
    assert sketched.read_text() == svg(scene)
    with Image.open(drawn) as file:
        assert file.size == (scene.width * png.SCALE, scene.height * png.SCALE)
        assert file.getpixel((0, 0)) == (255, 255, 255)
        colours = {colour for _, colour in file.getcolors(1 << 20)}
    assert {(0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00), (0x00, 0x9E, 0x73)} <= colours


def test_notebooks_show_the_picture() -> None:
    layer = ConvTranspose((5, 5), 2, 1, ((1, 2), (1, 2)))
    assert layer._repr_svg_() == svg(picture(layer, 4))
    assert "<code>ConvTranspose((5, 5), stride=(2, 2), crop=((1, 2), (1, 2)))</code>" in layer._repr_html_()
    assert layer._repr_svg_() in layer._repr_html_()


def test_shades_tell_counts_apart() -> None:
    assert shade(0, 9) == "#ffffff"
    lightness = [sum(bytes.fromhex(shade(count, 9)[1:])) for count in range(10)]
    assert lightness == sorted(lightness, reverse=True)
    assert len(set(lightness)) == 10
    assert mixed("#000000", 0.5) == "#808080"


def test_the_picture_counts_what_the_layer_sums() -> None:
    """The numbers in the picture, in order, are the result of ones on ones."""
    layer = ConvTranspose((4, 3), 2, 1, ((1, 1), (0, 1)), bias=False)
    ones = np.ones((1, 3, 3, 1), np.float32), np.ones((4, 3, 1, 1), np.float32)
    numbers = [item.text for item in picture(layer, 3).items if isinstance(item, Words) and item.text.isdigit()]
    assert numbers == [str(int(count)) for count in layer(*ones).ravel()]


def test_paddings_have_tensorflows_names() -> None:
    assert padding_of(convert.from_keras(3, 5, strides=2, padding="same")) == "SAME"
    assert padding_of(convert.from_keras(3, 5, strides=2)) == "VALID"
    assert padding_of(convert.from_torch(1, 1, 5, 2, 2, 1)) == "explicit"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, drawn in PICTURES.items():
        (GOLDEN / f"{name}.svg").write_text(svg(picture(*drawn)))
    for name, kernel in ("explain-1d", (5,)), ("explain-2d", (5, 5)):
        layer = convert.from_keras(1, kernel, strides=2, padding="same")
        (DOCS / f"{name}.svg").write_text(svg(picture(layer, 4)))
