# SPDX-License-Identifier: Apache-2.0
"""What PyTorch's users need besides the functions, all of which take tensors: layers, whole models made faster, and
functions of `backstride.layers` as modules.

>>> import torch, backstride.torch
>>> up = backstride.torch.ConvTranspose2d(16, 8, 4, stride=2, padding="same")
>>> up(torch.ones(1, 16, 5, 7)).shape
torch.Size([1, 8, 10, 14])
"""

from backstride.torch._accelerate import Accelerated, accelerate, restore
from backstride.torch._layers import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from backstride.torch._module import Module, constrain, module

__all__ = [
    "Accelerated",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Module",
    "accelerate",
    "constrain",
    "module",
    "restore",
]
