# SPDX-License-Identifier: Apache-2.0
"""The command line and the demo: where the pixels lie, what is refused, what is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import pairwise, product
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from typer.testing import CliRunner

from backstride import nn
from backstride._command import app
from backstride._command.files import FileError, paths_for, write_png
from backstride._command.photo import read_photo, scikit_image
from backstride._command.terminal import progress
from backstride._demo import measure, run
from backstride._demo.chain import (
    bilinear_filter,
    bilinear_zoom,
    chain,
    grids,
    mosaic,
    normalised,
    reduced,
    with_ones,
)
from backstride._demo.enlarge import STEPS, agreement, enlarge
from backstride._demo.picture import side_by_side
from backstride._demo.run import SAMPLES

ROUNDING = 255 * 2**-23 * 16  # a few float32 roundings of a grey level, over three layers and a division


def noise(*size: int) -> np.ndarray:
    return np.random.default_rng(prod(size)).integers(0, 256, (*size, 3), np.uint8)


def through(layers: list[Any], value: np.ndarray) -> np.ndarray:
    for geometry in layers:
        strides = [1, *(axis.stride for axis in geometry.axes), 1]
        value = nn.conv2d_transpose(value, bilinear_filter(geometry), geometry.shape("output"), strides)
    return value


def down_and_up(photo: np.ndarray) -> np.ndarray:
    layers = chain(photo.shape[:2], channels=4)
    return normalised(through(layers, with_ones(reduced(photo, grids(layers)))))


# Sizes and grid


def test_every_length_goes_down_as_in_fcn_8s() -> None:
    for length in range(1, 200):
        eighth = ceil(length / 8)
        lengths = [ceil(ceil(eighth / 2) / 2), ceil(eighth / 2), eighth, length]
        axes = [geometry.axes[0] for geometry in chain((length, 64), channels=4)]
        assert [(axis.input, axis.output) for axis in axes] == list(pairwise(lengths))
        assert lengths[0] == ceil(length / 32)


def test_the_sample_with_odd_stages() -> None:
    layers = chain((300, 451), channels=4)
    assert [geometry.shape("input")[1:3] for geometry in layers] == [(10, 15), (19, 29), (38, 57)]
    assert layers[-1].shape("output") == (1, 300, 451, 4)
    assert [tuple(axis.pad for axis in geometry.axes) for geometry in layers] == [(1, 1), (1, 1), (6, 6)]
    assert [axis.begin for axis in grids(layers)] == [-2, -2]


@pytest.mark.parametrize("length", range(193, 225))
def test_a_ramp_stays_where_it_is(length: int) -> None:
    # The mean of a ramp over a cell is the ramp at its centre, and every linear interpolation keeps a ramp:
    # at one grey level per pixel any shift of the grid shows. Cells that hang over the border are no ramp.
    ramp = np.arange(length, dtype=np.uint8)
    rows = np.broadcast_to(ramp[:, None, None], (length, 257, 3))
    for axis, photo in enumerate((rows, rows.transpose(1, 0, 2))):
        result = np.moveaxis(down_and_up(photo), axis, 0)[64 : length - 64, 64:-64]
        assert result.shape == (length - 128, 129, 3)
        assert_allclose(result, np.broadcast_to(ramp[64:-64, None, None], result.shape), atol=ROUNDING)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 70), (64, 64), (100, 97)], ids=str)
def test_a_flat_photo_comes_back_flat_to_the_border(size: tuple[int, int]) -> None:
    result = down_and_up(np.full((*size, 3), 200, np.uint8))
    assert result.dtype == np.float32
    assert_allclose(result, np.full((*size, 3), 200.0), atol=ROUNDING)


def test_without_the_channel_of_ones_the_border_is_dark() -> None:
    value = through(chain((64, 64), channels=4), with_ones(np.full((2, 2, 3), 200, np.float32)))
    assert value[0, 0, 0, 0] < 100
    assert value[0, 32, 32, 0] > 199.9


def test_cells_are_averaged_and_shown_in_place() -> None:
    photo = noise(70, 45)
    onto = grids(chain((70, 45), channels=4))
    small = reduced(photo, onto)
    tops, lefts = ([axis.begin + 32 * i for i in range(axis.input)] for axis in onto)
    assert min(tops) < 0 and min(lefts) < 0 and max(tops) + 32 > 70
    shown = mosaic(small, onto)
    for (i, top), (j, left) in product(enumerate(tops), enumerate(lefts)):
        rows = np.clip(np.arange(top, top + 32), 0, 69)
        columns = np.clip(np.arange(left, left + 32), 0, 44)
        assert_allclose(small[i, j], photo[np.ix_(rows, columns)].mean(axis=(0, 1)), rtol=1e-6)
        assert_array_equal(shown[np.ix_(rows, columns)] - small[i, j], 0)


def test_the_comparison_is_interpolation_between_cell_centres() -> None:
    onto = grids(chain((100, 33), channels=4))
    image = reduced(noise(100, 33), onto)
    centres = [axis.begin + 15.5 + 32 * np.arange(axis.input) for axis in onto]
    zoom = bilinear_zoom(image, onto)
    assert zoom.shape == (100, 33, 3)
    for column in range(33):
        line = [np.interp(column, centres[1], row[:, 1]) for row in image]
        assert_allclose(zoom[:, column, 1], np.interp(np.arange(100), centres[0], line), atol=1e-3)


# Measuring


@pytest.mark.parametrize("size", [(200, 191), (161, 258)], ids=str)
def test_the_result_agrees_with_scipy(size: tuple[int, int]) -> None:
    steps: list[str] = []
    enlargement = enlarge(noise(*size), 1e12, steps.append)
    found = enlargement.agreement
    assert 0.4 < found.interior < 1
    assert found.same_steps_max is not None and found.same_steps_max < ROUNDING
    assert found.one_step_max is not None and 0.1 < found.one_step_max < 30
    assert len(steps) == STEPS


def test_the_agreement_sees_a_shift_by_one_pixel() -> None:
    enlargement = enlarge(noise(200, 191), 1e12, lambda step: None)
    shifted, weight = np.roll(enlargement.result, 1, axis=1), np.ones((200, 191), np.float32)
    found = agreement(shifted, enlargement.zoom, enlargement.zoom, weight)
    assert found.same_steps_max is not None and found.same_steps_max > 0.3


@pytest.mark.parametrize("output", [(5, 9), (6, 7), (6, 8)], ids=str)
@pytest.mark.parametrize("kernel", [(4, 4), (1, 2), (3, 7)], ids=str)
def test_the_definition_is_a_scatter(output: tuple[int, int], kernel: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    value = random.integers(-9, 9, (2, 3, 3, 5)).astype(np.float32)
    filter = random.integers(-9, 9, (*kernel, 2, 5)).astype(np.float32)
    strides = (2, 3)
    before = [max(2 * s + k - o, 0) // 2 for s, k, o in zip(strides, kernel, output, strict=True)]
    expected = np.zeros((2, *output, 2))
    for i, j, a, b in np.ndindex(3, 3, *kernel):
        y, x = i * 2 + a - before[0], j * 3 + b - before[1]
        if 0 <= y < output[0] and 0 <= x < output[1]:
            expected[:, y, x] += value[:, i, j] @ filter[a, b].T
    assert_array_equal(measure.definition(value, filter, expected.shape, strides), expected)


def with_a_nan(result: np.ndarray) -> np.ndarray:
    result[0, -1, -1, -1] = np.nan
    return result


@pytest.mark.parametrize("wrong", [lambda y: np.roll(y, 1, axis=1), lambda y: y * 1.01, with_a_nan])
def test_a_wrong_layer_shows_in_the_table(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = chain((40, 40), channels=4)[-1]
    value = with_ones(noise(5, 5).astype(np.float32))

    def largest_difference() -> float:
        return measure.measured(geometry, value, bilinear_filter(geometry), 1e12)[1].largest_difference

    assert largest_difference() < ROUNDING
    right = nn.conv2d_transpose
    monkeypatch.setattr(nn, "conv2d_transpose", lambda *arguments: wrong(right(*arguments)))
    assert not largest_difference() < 1


# Photographs

GREY = np.linspace(0, 255, 12).astype(np.uint8).reshape(3, 4)


def saved(folder: Path, image: Image.Image, suffix: str = "png", **options: Any) -> Path:
    path = folder / f"photo.{suffix}"
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(GREY).convert(mode)
    photo = read_photo(saved(tmp_path, image, "tiff"))
    expected = np.asarray(image.convert("L"))
    assert photo.dtype == np.uint8
    assert_allclose(photo.astype(int), np.repeat(expected[..., None], 3, axis=2), atol=1)


@pytest.mark.parametrize(
    ("dtype", "scale", "suffix"),
    [
        ("u2", 257, "png"),
        ("u2", 257, "tiff"),
        ("i4", 257, "tiff"),
        ("i4", 2**20, "tiff"),
        ("f4", 1 / 255, "tiff"),
    ],
)
def test_deeper_grey_becomes_8_bits(dtype: str, scale: float, suffix: str, tmp_path: Path) -> None:
    image = Image.fromarray((GREY.astype(np.float64) * scale).astype(dtype))
    assert image.mode in ("I;16", "I", "F")
    photo = read_photo(saved(tmp_path, image, suffix))
    assert_array_equal(photo, np.repeat(GREY[..., None], 3, axis=2))


def test_grey_of_one_level_out_of_range_is_readable(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((2, 2), 300, np.float32))
    assert not read_photo(saved(tmp_path, image, "tiff")).any()


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    for mode in ("RGBA", "P"):
        colour = Image.fromarray(np.array([[[200, 0, 0, 255], [0, 200, 0, 0]]], np.uint8))
        photo = read_photo(saved(tmp_path, colour if mode == "RGBA" else colour.quantize()))
        assert photo.tolist() == [[[200, 0, 0], [255, 255, 255]]]


def test_exif_orientation_turns_the_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise to view
    photo = read_photo(saved(tmp_path, Image.fromarray(GREY), exif=exif))
    assert_array_equal(photo[..., 0], np.rot90(GREY, -1))


def test_whatever_a_decoder_says_fits_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image, mode: str) -> None:
        raise ArithmeticError(f"no {mode}\nin {image.size}")

    path = saved(tmp_path, Image.fromarray(GREY))
    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(FileError, match=r"^cannot read '.*photo\.png': .*image \(no RGB in \(4, 3\)\)$"):
        read_photo(path)


def test_samples_are_in_the_wheel() -> None:
    paths = scikit_image(*SAMPLES)
    assert [path.name for path in paths] == list(SAMPLES)
    assert [read_photo(path).shape for path in paths] == [(300, 451, 3), (512, 512, 3)]


# The command


def backstride(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app.app, [str(argument) for argument in arguments])


def nothing(path: Path) -> None:
    pass


def cut_short(suffix: str) -> Any:
    def write(path: Path) -> None:
        Image.fromarray(noise(64, 64)).save(path, format=suffix)
        path.write_bytes(path.read_bytes()[:-2000])

    return write


def not_finite(path: Path) -> None:
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(path, format="TIFF")


BROKEN = {
    "missing": (nothing, "no such file"),
    "directory": (Path.mkdir, "it is a directory"),
    "empty": (Path.touch, "the file is empty"),
    "text": (lambda path: path.write_text("not a photo\n" * 99), "not an image in a known format"),
    "pipe": (os.mkfifo, "not a regular file"),
    "short png": (cut_short("PNG"), "broken"),
    "short jpeg": (cut_short("JPEG"), "broken or unsupported image (image file is truncated"),
    "not finite": (not_finite, "values that are not finite"),
}


@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_photo_is_one_line_and_exit_code_2(kind: str, as_json: bool, tmp_path: Path) -> None:
    make, reason = BROKEN[kind]
    good, bad = saved(tmp_path, Image.fromarray(noise(40, 40))), tmp_path / "bad\n[photo].png"
    make(bad)
    result = backstride("demo", "--quick", good, bad, "--output", tmp_path / "out", *["--json"] * as_json)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("backstride: cannot read '")
    assert result.stderr.count("\n") == 1 and r"bad\n[photo].png" in result.stderr
    assert reason in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    photo = saved(tmp_path, Image.fromarray(noise(40, 40)))
    result = backstride("demo", "--quick", photo, "--output", photo)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith(f"backstride: cannot write to '{photo}': ")


@pytest.mark.parametrize("option", ["--scale", "--steps", "--seed"])
def test_quick_refuses_what_is_for_training(option: str, tmp_path: Path) -> None:
    result = backstride("demo", "--quick", option, "2", "--output", tmp_path / "out")
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith(f"backstride: {option} is for training, and --quick does not train")
    assert not (tmp_path / "out").exists()


def test_json_of_the_samples(tmp_path: Path) -> None:
    result = backstride("demo", "--quick", "--json", "--output", tmp_path / "new" / "folder")
    assert result.exit_code == 0 and result.stderr == ""
    report = json.loads(result.stdout)
    assert report["threads"] >= 1 and report["peak_gflops"] > 1
    assert [Path(photo["photo"]).name for photo in report["photos"]] == list(SAMPLES)
    for photo in report["photos"]:
        assert photo["agreement"]["same_steps_max"] < ROUNDING
        assert photo["agreement"]["interior"] > 0.5
        assert all(stage["largest_difference"] < ROUNDING for stage in photo["stages"])
        with Image.open(photo["picture"]) as picture:
            assert picture.format == "PNG" and picture.width == 1400
    cat = report["photos"][0]
    assert cat["size"] == [300, 451] and cat["cells_begin"] == [-2, -2]
    assert [stage["input"] for stage in cat["stages"]] == [[1, 10, 15, 4], [1, 19, 29, 4], [1, 38, 57, 4]]
    assert [stage["padding"] for stage in cat["stages"]] == [
        [[1, 2], [1, 2]],
        [[1, 1], [1, 2]],
        [[6, 6], [6, 7]],
    ]
    for row in [report["dense_layer"], *cat["stages"]]:
        flops = 2 * prod(row["input"]) * prod(row["kernel"]) * row["output"][-1]
        assert row["gflops"] == pytest.approx(flops / row["milliseconds"] / 1e6)
        assert row["share_of_peak"] == pytest.approx(row["gflops"] / report["peak_gflops"])
    assert report["dense_layer"]["output"] == [1, 128, 128, 64]
    assert report["dense_layer"]["largest_difference"] < 1e-3
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == [
        "astronaut-backstride.png",
        "chelsea-backstride.png",
    ]


def test_one_pixel_and_a_name_that_looks_like_markup(tmp_path: Path) -> None:
    photo = tmp_path / "[bold].png"
    Image.new("RGB", (1, 1), "red").save(photo)
    result = backstride("demo", "--quick", photo, "--output", tmp_path)
    assert result.exit_code == 0
    assert "[bold].png" in result.stdout and "too small to compare" in result.stdout
    with Image.open(tmp_path / "[bold]-backstride.png") as picture:
        assert picture.width == 1400


def test_as_a_program(tmp_path: Path) -> None:
    photo = tmp_path / "caf\u00e9.png"
    Image.fromarray(noise(90, 61)).save(photo)
    program = [sys.executable, "-m", "backstride._cli", "demo", "--quick"]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(
        [*program, photo, "--output", tmp_path], check=False, capture_output=True, text=True, env=ascii_only
    )
    assert (result.returncode, result.stderr) == (0, "")
    for expected in (
        r"caf\xe9.png",
        "3x2x4",
        "6x4x4",
        "12x8x4",
        "90x61x4",
        "k16 s8",
        "7/7, 5/6",
        "128x128x64",
        "FMA peak",
    ):
        assert expected in result.stdout
    result = subprocess.run([*program, tmp_path / "none.png"], check=False, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"backstride: cannot read '{tmp_path}/none.png': no such file\n"


@pytest.mark.parametrize("module", ["typer", "rich", "skimage", "scipy", "PIL", "autograd"])
def test_without_the_extra_it_says_how_to_get_it(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from backstride._cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (f"backstride: the command line needs {module}; run: pip install 'backstride[demo]'\n")


# Pictures


@pytest.mark.parametrize("size", [(40, 400), (700, 90), (1, 2000)], ids=str)
def test_any_shape_fits_its_panel(size: tuple[int, int]) -> None:
    enlargement = enlarge(np.zeros((*size, 3), np.uint8), 1e12, lambda step: None)
    picture = side_by_side(enlargement)
    assert picture.width == 1400 and picture.height < 600
    dark = (np.asarray(picture)[:, :, 0] == 0).any(axis=0)
    for left in range(10, 1400, 348):
        assert dark[left : left + 336].any() and not dark[left + 336 : left + 346].any()


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    write_png(Image.new("RGB", (2, 2), "red"), path)
    before = path.read_bytes()

    def fail(self: Image.Image, file: Any, **options: Any) -> None:
        file.write(b"half")
        assert path.read_bytes() == before
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        write_png(Image.new("RGB", (2, 2), "blue"), path)
    assert os.listdir(tmp_path) == ["picture.png"] and path.read_bytes() == before


def test_no_picture_overwrites_another_or_a_photo() -> None:
    photos = [Path("a.png"), Path("b/a.jpg"), Path("out/a-backstride-2.png")]
    assert [path.name for path in paths_for(photos, Path("out"), "-backstride")] == [
        "a-backstride.png",
        "a-backstride-3.png",
        "a-backstride-2-backstride.png",
    ]


# Progress


def test_the_bar_has_as_many_steps_as_there_are(tmp_path: Path) -> None:
    steps: list[str] = []
    photos = [saved(tmp_path, Image.fromarray(noise(9, 9)))] * 2
    run.run(photos, tmp_path, steps.append)
    assert len(steps) == run.total_steps(len(photos))


@pytest.mark.parametrize(("delay", "terminal", "shown"), [(0, "1", True), (60, "1", False), (0, "", False)])
def test_the_bar_shows_late_and_to_people_only(
    delay: float,
    terminal: str,
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress(total=2, delay=delay) as step:
        step("first [/] of")
        time.sleep(0.3)
        step("last one")
    out, err = capsys.readouterr()
    assert out == "" and ("first [/] of" in err) == shown and (err == "") == (not shown)
