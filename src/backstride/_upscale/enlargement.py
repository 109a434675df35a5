# SPDX-License-Identifier: Apache-2.0
"""Images enlarged by a trained network: luma, colours, alpha, 8 and 16 bits."""

from __future__ import annotations

import importlib.resources
from functools import partial
from pathlib import Path

import numpy as np

import backstride
from backstride._command.files import FileError
from backstride._command.photo import Levels
from backstride._upscale import cubic, network
from backstride._upscale.cubic import Floats

SCALES = (2, 3)
WEIGHTS = importlib.resources.files("backstride._upscale") / "weights"  # docs/training.md says what made them

HALO = max(cubic.REACH, network.REACH)  # pixels of the small image, to either side, that make one of the large


class Enlarger:
    """Bicubic enlargement, and the network's detail on top."""

    def __init__(self, scale: int, seed: int = 0) -> None:
        self.scale = scale
        self.network = partial(network.detail, scale=scale)
        self.store = backstride.VariableStore(seed=seed)
        self.store.run(self.network, np.zeros((1, 1, 1, 1), np.float32))

    def load(self, path: Path | None) -> None:
        """The weights of a file, or those that ship with the package."""
        path = path or Path(str(WEIGHTS / f"x{self.scale}.npz"))
        try:
            self.store.load(path)
        except (ImportError, OSError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise FileError(f"cannot use the weights {str(path)!r} at scale {self.scale}: {reason}") from error
        if not all(np.isfinite(value).all() for value in self.store.values().values()):
            raise FileError(f"cannot use the weights {str(path)!r}: some are not finite")

    def floats(self, image: Floats) -> Floats:
        """`[height, width, channels]` of 0..1, grey or RGB; what would leave 0..1 is clipped.

        RGB have the luma's detail in common, which leaves their differences, the colour, to bicubic enlargement.
        """
        images = image[None]
        # Strict, so that a pixel has the same bits in whatever tile it is.
        with backstride.precision("strict"):
            detail = self.store.run(self.network, cubic.luma(images)).result
        large: Floats = np.clip(cubic.enlarged(images, self.scale) + detail, 0, 1)[0]
        return large

    def levels(self, levels: Levels) -> Levels:
        """`[height, width, channels]` of 8 or 16 bits, grey or RGB, with alpha or without."""
        top = np.float32(np.iinfo(levels.dtype).max)
        image = levels.astype(np.float32) / top
        large = self._with_alpha(image) if levels.shape[2] in (2, 4) else self.floats(image)
        result: Levels = np.rint(large * top).astype(levels.dtype)
        return result

    def _with_alpha(self, image: Floats) -> Floats:
        """Enlarged as it looks on black, and divided by alpha: colours that nobody sees have no part in it."""
        colours, alpha = image[..., :-1], image[..., -1:]
        large = np.clip(cubic.enlarged(alpha[None], self.scale)[0], 0, 1)
        on_black = self.floats(colours * alpha)
        shown = np.divide(on_black, large, out=np.zeros_like(on_black), where=large > 0)
        return np.concatenate([np.minimum(shown, 1), large], axis=2)
