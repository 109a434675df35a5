# SPDX-License-Identifier: Apache-2.0
"""Layers, scopes, variables and losses against recordings of TensorFlow's (golden/record_layers.py)."""

from __future__ import annotations

import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from programs import WORLD, Outcome, from_json, run, statistics

import backstride

STORED = Path(__file__).with_name("golden").joinpath("layers.json.gz")
GOLDEN = json.loads(gzip.decompress(STORED.read_bytes()), object_hook=from_json)
COUNTS = {"programs": 153, "activations": 32, "regularizers": 12, "constraints": 16, "initializers": 45}
RTOL = {"float32": 4e-6, "float64": 1e-14}


def named(entries: str) -> Any:
    """One test per entry of the recording."""
    return pytest.mark.parametrize("entry", [pytest.param(entry, id=_name(entry)) for entry in GOLDEN[entries]])


def _name(entry: dict[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value}" for name, value in entry.get("arguments", {}).items())
    return f"{entry['name']}({arguments}), {entry['inputs'].dtype if 'inputs' in entry else entry['shape']}"


def test_everything_recorded_is_here() -> None:
    assert {name: len(entries) for name, entries in GOLDEN.items()} == COUNTS


@pytest.mark.parametrize("name", GOLDEN["programs"])
def test_program(name: str) -> None:
    recorded = GOLDEN["programs"][name]
    assert run(recorded["program"], WORLD).differences(Outcome(**recorded["outcome"])) == []


@named("activations")
def test_activation(entry: dict[str, Any]) -> None:
    """Through a layer that changes nothing before it."""
    with backstride.VariableStore():
        got = backstride.layers.conv2d_transpose(
            entry["inputs"],
            3,
            1,
            activation=entry["name"],
            kernel_initializer=lambda shape, dtype: np.eye(3, dtype=dtype).reshape(shape),
        )
    _close(got, entry["outputs"])


@named("regularizers")
def test_regularizer(entry: dict[str, Any]) -> None:
    _close(getattr(backstride.regularizers, entry["name"])(**entry["arguments"])(entry["inputs"]), entry["outputs"])


@named("constraints")
def test_constraint(entry: dict[str, Any]) -> None:
    _close(getattr(backstride.constraints, entry["name"])(**entry["arguments"])(entry["inputs"]), entry["outputs"])


@named("initializers")
def test_initializer_has_the_same_distribution(entry: dict[str, Any]) -> None:
    initializer = getattr(backstride, entry["name"])(**entry["arguments"])
    with backstride.VariableStore(seed=0):
        _alike(initializer(entry["shape"], dtype=np.float32), entry)


def test_kernels_are_glorot_uniform_by_default() -> None:
    """With the fans of a filter's last two axes read as in and out, though they are out and in."""
    with backstride.VariableStore(seed=0):
        backstride.layers.conv2d_transpose(np.zeros((1, 1, 1, 80), np.float32), 50, (3, 2))
        kernel, bias = backstride.global_variables()
    shape = list(kernel.shape)
    (entry,) = (e for e in GOLDEN["initializers"] if e["name"] == "glorot_uniform_initializer" and e["shape"] == shape)
    _alike(np.asarray(kernel), entry)
    assert not np.asarray(bias).any()


def _alike(array: np.ndarray, entry: dict[str, Any]) -> None:
    got, want = statistics(array), entry["statistics"]
    few_percent = partial(assert_allclose, rtol=0.03, atol=0.03 * want["std"])
    few_percent(got["mean"], want["mean"])
    few_percent(got["std"], want["std"])
    # The extremes of unbounded distributions vary; those of bounded ones lie close to the bounds.
    if want["max"] - want["mean"] < 2.5 * want["std"]:
        few_percent([got["min"], got["max"]], [want["min"], want["max"]])


def _close(got: Any, want: np.ndarray) -> None:
    """Equal but for the rounding of a few elementary functions."""
    assert np.asarray(got).dtype == want.dtype
    rtol = RTOL[want.dtype.name]
    assert_allclose(got, want, rtol=rtol, atol=rtol / 10)
