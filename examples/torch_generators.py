# SPDX-License-Identifier: Apache-2.0
"""Four generators of published sizes in plain PyTorch, each made faster by one line.

The weights are random: what counts are the layers. `models()` gives each with an input.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrizations import weight_norm

import backstride.torch


def dcgan() -> nn.Module:
    """The generator of DCGAN (Radford, Metz and Chintala, 2015): 64x64 pixels of 100 random numbers."""

    def up(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    first = [nn.ConvTranspose2d(100, 1024, 4, 1, 0, bias=False), nn.BatchNorm2d(1024), nn.ReLU()]
    last = [nn.ConvTranspose2d(128, 3, 4, 2, 1), nn.Tanh()]
    return nn.Sequential(*first, *up(1024, 512), *up(512, 256), *up(256, 128), *last)


class Pix2Pix(nn.Module):
    """The U-Net of pix2pix (Isola et al., 2017): 256x256 pixels to as many."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 64, 128, 256, 512, 512, 512, 512, 512]
        self.down = nn.ModuleList(nn.Conv2d(i, o, 4, 2, 1) for i, o in pairwise(widths))
        decoder = [(512, 512), (1024, 512), (1024, 512), (1024, 512), (1024, 256), (512, 128), (256, 64), (128, 3)]
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 4, 2, 1) for i, o in decoder)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o in decoder[:-1])

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for conv in self.down:
            x = leaky_relu(conv(x), 0.2)
            skips.append(x)
        skips.pop()
        for up, norm in zip(self.up, self.norms, strict=False):
            x = torch.cat([norm(up(torch.relu(x))), skips.pop()], 1)
        return torch.tanh(self.up[-1](torch.relu(x)))


class ResBlock(nn.Module):
    """Dilated convolutions around which the signal also goes straight on."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...] = (1, 3, 5)) -> None:
        super().__init__()
        self.first = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, channels, kernel, dilation=d, padding="same")) for d in dilations
        )
        self.second = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, channels, kernel, padding="same")) for _ in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.first, self.second, strict=True):
            x = x + second(leaky_relu(first(leaky_relu(x, 0.1)), 0.1))
        return x


class HiFiGAN(nn.Module):
    """The generator V1 of HiFi-GAN (Kong, Kim and Bae, 2020): 256 samples of speech of each frame of a spectrogram."""

    def __init__(self) -> None:
        super().__init__()
        self.before = weight_norm(nn.Conv1d(80, 512, 7, padding=3))
        self.ups, self.blocks = nn.ModuleList(), nn.ModuleList()
        for n, (rate, kernel) in enumerate([(8, 16), (8, 16), (2, 4), (2, 4)]):
            inputs, outputs = 512 >> n, 256 >> n
            up = nn.ConvTranspose1d(inputs, outputs, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(weight_norm(up))
            self.blocks.append(nn.ModuleList(ResBlock(outputs, size) for size in (3, 7, 11)))
        self.after = weight_norm(nn.Conv1d(32, 1, 7, padding=3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        for up, blocks in zip(self.ups, self.blocks, strict=True):
            x = up(leaky_relu(x, 0.1))
            x = sum(block(x) for block in blocks) / len(blocks)
        return torch.tanh(self.after(leaky_relu(x)))


class UNet3D(nn.Module):
    """The decoder of the 3-D U-Net (Çiçek et al., 2016); in the place of skip connections are ones."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.ConvTranspose3d(n, n, 2, 2) for n in (512, 256, 128))
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(up + skip, skip, 3, padding=1), nn.ReLU(), nn.Conv3d(skip, skip, 3, padding=1), nn.ReLU()
            )
            for up, skip in ((512, 256), (256, 128), (128, 64))
        )
        self.last = nn.Conv3d(64, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        for up, conv in zip(self.up, self.convs, strict=True):
            x = up(x)
            skip = torch.ones(x.shape[0], x.shape[1] // 2, *x.shape[2:])
            x = conv(torch.cat([x, skip], 1))
        return self.last(x)


def models() -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Each model in evaluation, by name, with an input."""
    yield "DCGAN", dcgan().eval(), torch.randn(16, 100, 1, 1)
    yield "pix2pix", Pix2Pix().eval(), torch.randn(1, 3, 256, 256)
    yield "HiFi-GAN V1", HiFiGAN().eval(), torch.randn(1, 80, 100)
    yield "3-D U-Net", UNet3D().eval(), torch.randn(1, 512, 4, 8, 8)


if __name__ == "__main__":
    torch.manual_seed(0)
    for name, model, example in models():
        with torch.inference_mode():
            before = model(example)
            done = backstride.torch.accelerate(model, example)
            difference = (model(example) - before).abs().max() / before.abs().max()
        print(f"{name}: {len(done.replaced)} layers replaced, {len(done.left)} left, off by {difference:.1e}")
        for layer, reason in done.left.items():
            print(f"    {layer}: {reason}")
