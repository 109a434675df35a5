# SPDX-License-Identifier: Apache-2.0
"""Enlarging any image: the same bits in tiles, every kind of file, what is refused, what is written."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from test_demo import BROKEN
from typer.testing import CliRunner

from backstride._command import app, png
from backstride._command.photo import Raster, read_raster
from backstride._upscale import cubic, tiles, upscaling
from backstride._upscale.enlargement import HALO, SCALES, Enlarger

ROUNDING = 2**-23 * 32  # of two sums of sixteen products, float32, results up to 1 and weights up to 1


def levels(*shape: int, bits: int = 8) -> np.ndarray:
    random = np.random.default_rng(shape)
    return random.integers(0, 2**bits, shape).astype(f"u{bits // 8}")


@pytest.fixture(scope="module", params=SCALES, ids="x{}".format)
def enlarger(request: pytest.FixtureRequest) -> Enlarger:
    shipped = Enlarger(request.param)
    shipped.load(None)
    return shipped


# Bicubic enlargement


def keys(x: float) -> float:
    x = abs(x)
    return 1 - 2.5 * x**2 + 1.5 * x**3 if x < 1 else 2 - 4 * x + 2.5 * x**2 - 0.5 * x**3 if x < 2 else 0


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3)], ids=str)
def test_bicubic_is_the_definition(size: tuple[int, int], scale: int) -> None:
    image = np.random.default_rng(0).random((2, *size, 3)).astype(np.float32)
    matrices = [np.zeros((length * scale, length)) for length in size]
    for matrix, length in zip(matrices, size, strict=True):
        for row in range(length * scale):
            centre = (row + 0.5) / scale - 0.5
            for n in range(-4, length + 4):
                matrix[row, min(max(n, 0), length - 1)] += keys(centre - n)
    expected = np.einsum("yi,xj,nijc->nyxc", *matrices, image)
    assert_allclose(cubic.enlarged(image, scale), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("scale", SCALES)
def test_bicubic_is_pillows_inside(scale: int) -> None:
    image = np.random.default_rng(0).random((20, 33)).astype(np.float32)
    theirs = Image.fromarray(image).resize((33 * scale, 20 * scale), Image.Resampling.BICUBIC)
    ours = cubic.enlarged(image[None, ..., None], scale)[0, ..., 0]
    inside = (slice(2 * scale, -2 * scale),) * 2
    assert_allclose(ours[inside], np.asarray(theirs)[inside], rtol=0, atol=ROUNDING)


# Tiles


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (13, 14), (40, 27)], ids=str)
@pytest.mark.parametrize("tile", [1, 5, 13])
def test_no_bit_tells_where_the_tiles_were(enlarger: Enlarger, size: tuple[int, int], tile: int) -> None:
    image = levels(*size, 3).astype(np.float32) / 255
    bands = [*tiles.bands(enlarger.floats, image, enlarger.scale, HALO, tile)]
    assert len(bands) == -(-size[0] // tile)
    assert_array_equal(np.concatenate(bands), enlarger.floats(image))


def test_a_smaller_halo_would_be_seen(enlarger: Enlarger) -> None:
    image = levels(40, 27, 1).astype(np.float32) / 255
    bands = tiles.bands(enlarger.floats, image, enlarger.scale, HALO - 1, 13)
    assert not np.array_equal(np.concatenate([*bands]), enlarger.floats(image))


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    """What it takes beyond the image itself; all 32 channels of it would be 67 MB."""
    enlarger, raster = Enlarger(2), Raster(levels(512, 1024, 1))
    tracemalloc.start()
    upscaling.upscale(raster, Path("photo"), tmp_path / "large.png", enlarger, lambda step: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1e6 < peak < 2e7


# Colours, alpha, depth


def test_grey_as_colours_is_grey(enlarger: Enlarger) -> None:
    grey = levels(9, 12, 1)
    colours = enlarger.levels(np.repeat(grey, 3, axis=2))
    assert_allclose(colours.astype(int), np.repeat(enlarger.levels(grey).astype(int), 3, axis=2), atol=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_opaque_alpha_changes_nothing(enlarger: Enlarger, channels: int) -> None:
    image = levels(9, 12, channels)
    large = enlarger.levels(np.concatenate([image, np.full((9, 12, 1), 255, np.uint8)], axis=2))
    assert_array_equal(large[..., -1], 255)
    assert_allclose(large[..., :-1].astype(int), enlarger.levels(image).astype(int), atol=1)


def test_hidden_colours_stay_hidden(enlarger: Enlarger) -> None:
    image = levels(9, 12, 4)
    image[:, :6, 3] = 0
    other = image.copy()
    other[:, :6, :3] = 255 - other[:, :6, :3]
    large = enlarger.levels(image)
    assert_array_equal(large, enlarger.levels(other))
    assert not large[:, : 3 * enlarger.scale, 3].any() and large[:, 9 * enlarger.scale :, 3].any()


def test_16_bits_are_8_bits_and_more(enlarger: Enlarger) -> None:
    image = levels(9, 12, 3)
    deep = enlarger.levels(image.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16
    assert_array_equal(np.rint(deep / 257), enlarger.levels(image))
    assert len(np.unique(deep)) > 256


def test_edges_become_sharper(enlarger: Enlarger) -> None:
    edge = np.full((16, 16, 3), 60, np.uint8)
    edge[:, 8:] = (200, 180, 160)
    ours = enlarger.levels(edge).astype(float)
    smooth = cubic.enlarged(edge[None].astype(np.float32), enlarger.scale)[0]
    middle = 8 * enlarger.scale
    rises = [float((image[:, middle] - image[:, middle - 1])[middle // 2 :].mean()) for image in (ours, smooth)]
    assert rises[0] > 1.1 * rises[1]


# Files


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_files_are_read_as_they_were_written(channels: int, bits: int, tmp_path: Path) -> None:
    image, path = levels(13, 7, channels, bits=bits), tmp_path / "image.png"
    with path.open("wb") as file:
        writer = png.Writer(file, image.shape, bits, b"a profile")
        writer.rows(image[:5])
        writer.rows(image[5:])
        writer.close()
    read = read_raster(path)
    assert read.profile == b"a profile"
    if (channels, bits) == (2, 16):  # Pillow has no such thing, and makes it 8-bit RGBA
        image = (image >> 8)[..., [0, 0, 0, 1]]
    assert read.levels.dtype == (np.uint8 if (channels, bits) == (2, 16) else image.dtype)
    assert_array_equal(read.levels, image)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_of_tiff_files_are_all_read(channels: int, compression: Any, order: Any, tmp_path: Path) -> None:
    image, path = levels(13, 7, channels, bits=16), tmp_path / "image.tiff"
    tifffile.imwrite(
        path,
        image[..., 0] if channels == 1 else image,
        byteorder=order,
        compression=compression,
        photometric="minisblack" if channels == 1 else "rgb",
        extrasamples=["unassalpha"] * (channels == 4),
    )
    read = read_raster(path).levels
    assert read.dtype == np.uint16
    assert_array_equal(read, image)


def backstride(*arguments: str | Path | int) -> Any:
    return CliRunner().invoke(app.app, [str(argument) for argument in arguments])


KINDS: dict[str, tuple[Image.Image, int]] = {
    "one pixel": (Image.new("L", (1, 1), 77), 1),
    "one row": (Image.fromarray(levels(1, 30)), 1),
    "one column": (Image.fromarray(levels(300, 1)), 1),
    "black and white": (Image.fromarray(levels(6, 9)).convert("1"), 1),
    "grey and alpha": (Image.fromarray(levels(6, 9, 2), "LA"), 2),
    "16-bit grey": (Image.fromarray(levels(6, 9, bits=16)), 1),
    "colours": (Image.fromarray(levels(6, 9, 3)), 3),
    "colours and alpha": (Image.fromarray(levels(6, 9, 4)), 4),
    "palette": (Image.fromarray(levels(6, 9, 3)).quantize(8), 3),
    "palette and alpha": (Image.fromarray(levels(6, 9, 4)).quantize(8), 4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file(kind: str, tmp_path: Path, enlarger: Enlarger) -> None:
    image, channels = KINDS[kind]
    photo, output = tmp_path / "photo.png", tmp_path / "large.png"
    image.save(photo)
    result = backstride("upscale", photo, "--output", output, "--scale", enlarger.scale, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    large, small = read_raster(output).levels, read_raster(photo).levels
    assert large.shape == (image.height * enlarger.scale, image.width * enlarger.scale, channels)
    assert_array_equal(large, enlarger.levels(small))
    found = json.loads(result.stdout)
    assert found["size"] == list(large.shape) and found["bits"] == 8 * small.itemsize
    assert found["scale"] == enlarger.scale and found["output"] == str(output)


def test_the_colour_profile_is_kept(tmp_path: Path) -> None:
    photo, output = tmp_path / "photo.jpg", tmp_path / "large.png"
    Image.fromarray(levels(6, 9, 3)).save(photo, icc_profile=b"a profile")
    assert backstride("upscale", photo, "--output", output).exit_code == 0
    assert read_raster(output).profile == b"a profile"
    Image.fromarray(levels(6, 9, 4), "CMYK").save(photo, icc_profile=b"of inks")
    assert backstride("upscale", photo, "--output", output).exit_code == 0
    assert read_raster(output).profile == b""


def test_the_output_has_the_photos_name_and_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(levels(6, 9, 3)).save("photo.jpg")
    result = backstride("upscale", "photo.jpg", "--scale", 3)
    assert result.exit_code == 0
    assert result.stdout.startswith("photo-x3.png: 18x27 pixels of 8 bits, in ")
    assert sorted(os.listdir()) == ["photo-x3.png", "photo.jpg"]


# What is refused


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_photo_is_one_line_and_exit_code_2(kind: str, tmp_path: Path) -> None:
    make, reason = BROKEN[kind]
    make(tmp_path / "bad.png")
    result = backstride("upscale", tmp_path / "bad.png", "--output", tmp_path / "large.png")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("backstride: cannot read '") and result.stderr.count("\n") == 1
    assert reason in result.stderr
    assert not (tmp_path / "large.png").exists()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(levels(6, 9, 3)).save(path)
    return path


def scale_3(path: Path) -> None:
    Enlarger(3).store.save(path)


WEIGHTS = {
    "missing": lambda path: None,
    "directory": Path.mkdir,
    "empty": Path.touch,
    "text": lambda path: path.write_text("not weights\n" * 99),
    "another scale": scale_3,
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_bad_weights_are_one_line_and_exit_code_2(kind: str, photo: Path) -> None:
    weights, output = photo.with_name("weights.npz"), photo.with_name("large.png")
    WEIGHTS[kind](weights)
    result = backstride("upscale", photo, "--weights", weights, "--output", output)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"backstride: cannot use the weights '{weights}' at scale 2: ")
    assert result.stderr.count("\n") == 1 and not result.stderr.endswith(": None\n")
    assert not output.exists()


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("large.jpg", "backstride: the result is a PNG file; give --output a name that ends in .png, not '"),
        ("photo.png", "backstride: --output '"),
        ("no/such/folder.png", "backstride: cannot write to '"),
    ],
)
def test_a_bad_output_is_one_line_and_exit_code_2(output: str, reason: str, photo: Path) -> None:
    before = photo.read_bytes()
    result = backstride("upscale", photo, "--output", photo.parent / output)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(reason) and result.stderr.count("\n") == 1
    assert os.listdir(photo.parent) == ["photo.png"] and photo.read_bytes() == before


def test_ctrl_c_leaves_what_was_there(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = photo.with_name("large.png")
    output.write_bytes(b"before")

    def interrupt(self: Any, rows: Any) -> None:
        assert len(os.listdir(photo.parent)) == 3
        raise KeyboardInterrupt

    monkeypatch.setattr(png.Writer, "rows", interrupt)
    result = backstride("upscale", photo, "--output", output)
    assert result.exit_code == 130 and result.stdout == "" and result.stderr.count("\n") <= 1
    assert sorted(os.listdir(photo.parent)) == ["large.png", "photo.png"]
    assert output.read_bytes() == b"before"
