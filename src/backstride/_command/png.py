# SPDX-License-Identifier: Apache-2.0
"""PNG files of 8 and 16 bits, written from top to bottom: Pillow has no 16-bit colours, and wants the whole image."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np

from backstride._command.photo import Levels

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels: grey, grey and alpha, RGB, RGB and alpha
FILTER_UP = 2


class Writer:
    """Takes the rows of one image, any number at a time."""

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], depth: int, profile: bytes = b"") -> None:
        height, width, channels = shape
        self._file, self._depth = file, depth
        self._above = np.zeros((1, width * channels * depth // 8), np.uint8)
        self._deflate = zlib.compressobj()
        file.write(SIGNATURE)
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, COLOUR_TYPES[channels], 0, 0, 0))
        if profile:
            self._chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile))

    def rows(self, levels: Levels) -> None:
        """The next rows, `[rows, width, channels]`."""
        bytes_ = np.ascontiguousarray(levels, f">u{self._depth // 8}").view(np.uint8).reshape(len(levels), -1)
        above = np.concatenate([self._above, bytes_[:-1]])
        lines = np.insert(bytes_ - above, 0, FILTER_UP, axis=1)  # differences modulo 256
        self._above = bytes_[-1:]
        self._data(self._deflate.compress(lines.tobytes()))

    def close(self) -> None:
        """The end of the image."""
        self._data(self._deflate.flush())
        self._chunk(b"IEND", b"")

    def _data(self, data: bytes) -> None:
        if data:
            self._chunk(b"IDAT", data)

    def _chunk(self, kind: bytes, data: bytes) -> None:
        self._file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
