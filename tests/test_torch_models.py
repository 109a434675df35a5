# SPDX-License-Identifier: Apache-2.0
"""The generators of examples/torch_generators.py, before and after `accelerate`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import backstride.torch

EXAMPLE = Path(__file__).parent.parent / "examples" / "torch_generators.py"

# Small inputs, and how many layers are transposed convolutions.
INPUTS = {
    "DCGAN": ((2, 100, 1, 1), 5),
    "pix2pix": ((1, 3, 256, 256), 8),
    "HiFi-GAN V1": ((1, 80, 6), 4),
    "3-D U-Net": ((1, 512, 1, 2, 2), 3),
}


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    specification = importlib.util.spec_from_file_location("torch_generators", EXAMPLE)
    assert specification is not None and specification.loader is not None
    example: Any = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    return {name: model for name, model, _ in example.models()}


@pytest.mark.parametrize("name", INPUTS)
def test_results_are_the_same(models: dict[str, nn.Module], name: str) -> None:
    model, (shape, count) = models[name], INPUTS[name]
    x = torch.randn(shape)
    with torch.inference_mode():
        want = model(x)
        assert len(backstride.torch.accelerate(model).replaced) == count
        for _ in range(2):
            torch.testing.assert_close(model(x), want, rtol=1e-3, atol=1e-4)
        assert len(backstride.torch.restore(model)) == count
        assert torch.equal(model(x), want)


def test_every_model_is_here(models: dict[str, nn.Module]) -> None:
    assert models.keys() == INPUTS.keys()
