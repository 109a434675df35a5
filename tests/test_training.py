# SPDX-License-Identifier: Apache-2.0
"""Training by the demo's own loop: what it learns from, what it does to the variables, what comes out."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from typer.testing import CliRunner

import backstride
from backstride._command import app
from backstride._command.photo import read_photo, scikit_image
from backstride._upscale import cubic, demonstration, photographs, training
from backstride._upscale.enlargement import SCALES, Enlarger
from backstride._upscale.photographs import HELD_OUT, PATCH, TRAINING, Batch, Patches
from backstride._upscale.quality import quality


def nothing(*_: object) -> None:
    pass


@pytest.fixture(scope="module", params=SCALES, ids="x{}".format)
def patches(request: pytest.FixtureRequest) -> Patches:
    return Patches(request.param)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return next(Patches(2).batches(seed=0))


# Photographs


def test_held_out_photographs_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    right = photographs.read_luma
    monkeypatch.setattr(photographs, "read_luma", lambda path: read.append(path.name) or right(path))
    Patches(2)
    assert sorted(read) == sorted(TRAINING) and len(set(TRAINING)) == 14
    assert HELD_OUT == ("chelsea.png", "coffee.png")
    assert not set(HELD_OUT) & set(TRAINING)
    trained, held_out = (
        {read_photo(path).tobytes() for path in scikit_image(*names)} for names in (TRAINING, HELD_OUT)
    )
    assert len(trained | held_out) == 16


@pytest.mark.parametrize("scale", SCALES)
def test_the_reduction_is_what_a_file_would_hold(scale: int) -> None:
    luma = photographs.read_luma(scikit_image("chelsea.png")[0])
    known = photographs.pair(luma, scale)
    assert luma.shape == (300, 451) and known.truth.shape == (300, 451 - 451 % scale)
    assert known.small.shape == (300 // scale, 451 // scale)
    assert_array_equal(known.small * 255, np.rint(known.small * 255))
    means = known.truth.reshape(300 // scale, scale, -1, scale).mean(axis=(1, 3))
    assert np.abs(known.small - means).mean() < 0.02


def test_patches_and_what_is_missing_lie_alike(patches: Patches) -> None:
    """What bicubic enlargement of a patch lacks is the truth, which when reduced is the patch again, up to rounding to
    8 bits, inside of the border, where it takes the rest of the photograph."""
    scale = patches._scale
    found = [next(patches.batches(seed)) for seed in range(3)]
    small = np.concatenate([batch.small for batch in found])
    truth = np.concatenate([cubic.enlarged(batch.small, scale) + batch.missing for batch in found])
    assert small.shape[1:] == (PATCH, PATCH, 1) and truth.shape[1:] == (PATCH * scale, PATCH * scale, 1)
    for one, large in zip(small[..., 0], truth[..., 0], strict=True):
        again = np.clip(photographs.resized(np.ascontiguousarray(large), one.shape), 0, 1)
        assert_allclose(again[5:-5, 5:-5], one[5:-5, 5:-5], rtol=0, atol=0.5 / 255 + 1e-5)
        assert np.abs(again - np.rot90(one))[5:-5, 5:-5].max() > 2 / 255


def test_patches_follow_from_the_seed(patches: Patches) -> None:
    first, second, other = (patches.batches(seed) for seed in (1, 1, 2))
    for one, same, different in itertools.islice(zip(first, second, other, strict=True), 3):
        assert_array_equal(one.small, same.small)
        assert_array_equal(one.missing, same.missing)
        assert not np.array_equal(one.small, different.small)


# The loop


def trained(steps: int, seed: int, batch: Batch) -> tuple[dict[str, np.ndarray], list[float]]:
    enlarger, losses = Enlarger(2, seed), list[float]()
    training.train(enlarger.store, enlarger.network, itertools.repeat(batch), steps, losses.append)
    return enlarger.store.values(), losses


def test_the_loss_falls(batch: Batch) -> None:
    """On one batch again and again, to well below what bicubic enlargement has."""
    few = Batch(batch.small[:4], batch.missing[:4])
    values, losses = trained(200, 0, few)
    bicubic = float(training.charbonnier(few.missing))
    assert len(losses) == 200
    assert losses[0] > 0.95 * bicubic
    assert losses[-1] < 0.8 * bicubic
    assert all(value.dtype == np.float32 for value in values.values())


def test_the_same_seed_gives_the_same_bits_with_any_threads(batch: Batch) -> None:
    threads = backstride.get_num_threads()
    values, losses = trained(4, 5, batch)
    other, _ = trained(4, 6, batch)
    backstride.set_num_threads(3 - min(threads, 2))
    same, _ = trained(4, 5, batch)
    backstride.set_num_threads(threads)
    for name, value in values.items():
        assert_array_equal(value, same[name])
    assert not np.array_equal(values["head/kernel"], other["head/kernel"])
    assert len(set(losses)) == 4


def test_rates_rise_and_fall() -> None:
    rates = training.rates(1000)
    assert len(rates) == 1000 and min(rates) > 0
    assert rates[0] == pytest.approx(training.PEAK_RATE / training.WARM_UP)
    assert rates == pytest.approx([*sorted(rates[:99]), *sorted(rates[99:], reverse=True)])
    assert rates[99] == pytest.approx(training.PEAK_RATE, rel=0.05) and rates[-1] < 1e-5 * training.PEAK_RATE * 1000


Network = Callable[[Any], Any]


def head(constraint: Any = None, regularizer: Any = None) -> Network:
    def network(x: Any) -> Any:
        return backstride.layers.conv2d_transpose(
            x,
            filters=1,
            kernel_size=4,
            strides=2,
            padding="same",
            kernel_constraint=constraint,
            kernel_regularizer=regularizer,
            name="head",
        )

    return network


def made(network: Network, batch: Batch) -> backstride.VariableStore:
    store = backstride.VariableStore(seed=0)
    store.run(network, batch.small)
    return store


def norms(kernel: np.ndarray) -> np.ndarray:
    return np.sqrt((kernel**2).sum(axis=0))


LIMIT = 0.3


@pytest.mark.parametrize("constrained", [True, False])
def test_a_constrained_kernel_stays_in_its_set(constrained: bool, batch: Batch) -> None:
    network = head(backstride.constraints.max_norm(LIMIT) if constrained else None)
    store, largest = made(network, batch), list[float]()
    training.train(
        store,
        network,
        itertools.repeat(Batch(batch.small, batch.missing + 1)),
        150,
        lambda loss: largest.append(norms(store.values()["head/kernel"]).max()),
    )
    largest.append(norms(store.values()["head/kernel"]).max())
    assert len(largest) == 151
    assert bool(max(largest) <= LIMIT * (1 + 1e-6)) is constrained
    assert largest[-1] >= LIMIT * (1 - 1e-3)  # and the constraint was needed


def test_adam_goes_on_from_what_the_constraint_left(batch: Batch) -> None:
    """The same bits as Adam, and the constraint after each step, written out."""
    network = head(backstride.constraints.max_norm(LIMIT))
    store, rates = made(network, batch), [0.05, 0.04, 0.03, 0.02]
    values = store.constrain(store.values())

    def loss(values: dict[str, Any], item: float) -> Any:
        return anp.mean((store.run(network, batch.small, values=values).result - item) ** 2)

    expected = {name: np.array(value) for name, value in values.items()}
    m, v = ({name: np.zeros(value.shape) for name, value in values.items()} for _ in range(2))
    for n, rate in enumerate(rates):
        slopes = grad(loss)(expected, float(n))
        for name, g in slopes.items():
            m[name] = (1 - 0.9) * g + 0.9 * m[name]
            v[name] = (1 - 0.999) * g**2 + 0.999 * v[name]
            step = rate * (m[name] / (1 - 0.9 ** (n + 1))) / (np.sqrt(v[name] / (1 - 0.999 ** (n + 1))) + 1e-8)
            expected[name] = (expected[name] - step).astype(np.float32)
        expected = store.constrain(expected)
    seen: list[float] = []
    training.minimize(loss, store, iter([0.0, 1.0, 2.0, 3.0]), rates, seen.append)
    assert len(seen) == 4
    for name, value in store.values().items():
        assert_array_equal(value, expected[name])


def test_regularization_is_part_of_the_loss(batch: Batch) -> None:
    losses: dict[bool, list[float]] = {False: [], True: []}
    for regularized, seen in losses.items():
        network = head(regularizer=backstride.regularizers.l2(10.0) if regularized else None)
        store = made(network, batch)
        kernel = store.values()["head/kernel"]
        training.train(store, network, itertools.repeat(batch), 2, seen.append)
    assert losses[True][0] - losses[False][0] == pytest.approx(10 * float((kernel**2).sum()), rel=1e-5)


# What comes out


@pytest.mark.parametrize("scale", SCALES)
def test_the_shipped_weights_beat_bicubic(scale: int) -> None:
    enlarger = Enlarger(scale, seed=7)
    fresh = enlarger.store.values()
    enlarger.load(None)
    shipped = enlarger.store.values()
    assert all(not np.array_equal(fresh[name], shipped[name]) for name in shipped if shipped[name].any())
    gains = []
    for path in scikit_image(*HELD_OUT):
        known = demonstration.read_pair(path, scale)
        bicubic = cubic.enlarged(known.small[None, ..., None], scale)[0, ..., 0]
        before = quality(bicubic, known.truth, scale)
        after = quality(demonstration.enlarged(known, enlarger), known.truth, scale)
        gains.append(after.psnr - before.psnr)
        assert after.ssim > before.ssim
    assert min(gains) > 0 and np.mean(gains) >= 0.5


@pytest.mark.parametrize("shift", [0, 1])
def test_quality_is_that_of_the_definition(shift: int) -> None:
    random = np.random.default_rng(0)
    truth = random.random((20, 25)).astype(np.float32)
    image = np.clip(truth + random.normal(0, 0.1, truth.shape), 0, 1).astype(np.float32)
    image[:2] = image[-2:] = 0.5  # on the border, which does not count
    inside = (slice(2, -2), slice(2, -2))
    expected = -10 * np.log10(((np.clip(image + shift, 0, 1) - truth)[inside] ** 2).mean(dtype=np.float64))
    found = quality(image + shift, truth, border=2)
    assert found.psnr == pytest.approx(expected, rel=1e-6)
    assert quality(truth, truth, 2).ssim == pytest.approx(1) and found.ssim < 1


def backstride_demo(*arguments: object) -> Any:
    return CliRunner().invoke(app.app, ["demo", *map(str, arguments)])


def test_the_demo_measures_what_it_has_trained(tmp_path: Path) -> None:
    result = backstride_demo("--steps", 2, "--seed", 3, "--scale", 3, "--output", tmp_path / "new" / "folder", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert (report["scale"], report["steps"], report["seed"]) == (3, 2, 3)
    assert [Path(photo["photo"]).name for photo in report["photos"]] == list(HELD_OUT)
    assert [round(photo["bicubic"]["psnr"], 3) for photo in report["photos"]] == pytest.approx(
        [31.568, 27.085], abs=2e-3
    )
    assert [round(photo["bicubic"]["ssim"], 4) for photo in report["photos"]] == [0.8388, 0.7970]
    for photo in report["photos"]:
        assert photo["spline"]["psnr"] > photo["bicubic"]["psnr"]
        with Image.open(photo["picture"]) as picture:
            assert picture.format == "PNG" and picture.width == 1400
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == ["chelsea-x3.png", "coffee-x3.png", "x3.npz"]
    enlarger = Enlarger(3)
    enlarger.load(Path(report["weights"]))
    truth = demonstration.read_pair(scikit_image(HELD_OUT[0])[0], 3)
    ours = quality(demonstration.enlarged(truth, enlarger), truth.truth, 3)
    assert report["photos"][0]["ours"] == {"psnr": ours.psnr, "ssim": ours.ssim}


def test_the_table_and_a_photo_of_ones_own(tmp_path: Path) -> None:
    photo = tmp_path / "flat.png"
    Image.new("RGB", (40, 31), "black").save(photo)
    table = backstride_demo(photo, "--steps", 1, "--output", tmp_path)
    assert table.exit_code == 0 and table.stderr == ""
    for expected in ("flat.png", "inf / 1.0000", "over bicubic", "-inf", "1 steps in"):
        assert expected in table.stdout
    assert table.stdout.endswith(f"weights: {tmp_path / 'x2.npz'}\npicture: {tmp_path / 'flat-x2.png'}\n")
    report = json.loads(backstride_demo(photo, "--steps", 1, "--output", tmp_path, "--json").stdout)
    assert report["photos"][0]["bicubic"] == {"psnr": None, "ssim": 1.0}


def test_a_photo_too_small_to_measure_is_refused(tmp_path: Path) -> None:
    photo = tmp_path / "small.png"
    Image.new("RGB", (40, 16), "red").save(photo)
    result = backstride_demo(photo, "--steps", 1, "--output", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"backstride: cannot measure on '{photo}': it is smaller than 17x17 pixels\n"
    assert not (tmp_path / "out").exists()


def test_the_bar_has_as_many_steps_as_there_are(tmp_path: Path) -> None:
    photo, steps = tmp_path / "photo.png", list[str]()
    Image.new("RGB", (40, 40), "red").save(photo)
    demonstration.run([photo, photo], tmp_path, 2, 3, 0, steps.append)
    assert len(steps) == demonstration.total_steps(photos=2, steps=3)


def test_progress_shows_loss_and_psnr() -> None:
    enlarger, truth = Enlarger(2), np.random.default_rng(0).random((40, 40)).astype(np.float32)
    known, steps = photographs.pair(truth, 2), list[str]()
    after = demonstration.watch(enlarger, [known], steps.append)
    after(0.125)
    psnr = quality(demonstration.enlarged(known, enlarger), truth, 2).psnr
    assert steps == [f"loss 0.1250, PSNR {psnr:.2f} dB"]
    enlarger.store.update({"head/kernel": np.ones((6, 6, 1, 32))})
    for _ in range(demonstration.EVERY):
        after(0.5)
    assert steps[-2] == f"loss 0.5000, PSNR {psnr:.2f} dB" != steps[-1].replace("0.125", "0.5")


def test_ctrl_c_while_training_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(difference: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "charbonnier", interrupt)
    result = backstride_demo("--output", tmp_path)
    assert result.exit_code == 130 and result.stdout == "" and result.stderr.count("\n") <= 1
    assert os.listdir(tmp_path) == []
