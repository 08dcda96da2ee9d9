"""Pictures in a labelled grid."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

_SMALL = 160  # tiles are enlarged by a whole number until their longer side has so many pixels
_GAP, _LINE, _FONT = 4, 20, 13  # pixels
_PAPER, _INK = (255, 255, 255), (20, 20, 20)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where tiles stand: the last axis across, the one before it down, others block by block.

    Attributes:
      axes: (name, values) of every axis.
      tile: (height, width) of a picture.
      scale: by how much pictures are enlarged, a whole number.
      margin: pixels on the left, for the names of rows.
    """

    axes: tuple[tuple[str, tuple], ...]
    tile: tuple[int, int]
    scale: int
    margin: int

    @classmethod
    def of(cls, axes, shape: Sequence[int]) -> Grid:
        """The grid of pictures of a shape (h, w, ...)."""
        tile = int(shape[0]), int(shape[1])
        scale = max(1, -(-_SMALL // max(tile)))
        rows = [label(axes[-2][0], v) for v in axes[-2][1]] if len(axes) > 1 else []
        margin = min(220, max((_wide(text) for text in rows), default=0) + 2 * _GAP)
        return cls(tuple((n, tuple(v)) for n, v in axes), tile, scale, margin if rows else _GAP)

    @property
    def columns(self) -> int:
        return len(self.axes[-1][1])

    @property
    def rows(self) -> int:
        return len(self.axes[-2][1]) if len(self.axes) > 1 else 1

    @property
    def blocks(self) -> list[str]:
        """The titles of the blocks; one empty title without a third axis."""
        outer = self.axes[:-2]
        combos = itertools.product(*(values for _, values in outer))
        return [", ".join(label(n, v) for (n, _), v in zip(outer, c, strict=True)) for c in combos]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the sheet."""
        _, wide = self._step
        return len(self.blocks) * self._block + _GAP, self.margin + self.columns * wide

    def place(self, number: int) -> tuple[int, int]:
        """(top, left) of a cell's picture."""
        tall, wide = self._step
        block, inside = divmod(number, self.rows * self.columns)
        row, column = divmod(inside, self.columns)
        return block * self._block + self._head + row * tall, self.margin + column * wide

    def cut(self, sheet: np.ndarray, number: int) -> np.ndarray:
        """A cell's picture out of the sheet, as it was before it was enlarged."""
        (top, left), (height, width) = self.place(number), self._shown
        return sheet[top : top + height : self.scale, left : left + width : self.scale]

    def drawn(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The sheet, uint8 [H, W, 3]; images in the order of the cells."""
        from PIL import Image, ImageDraw

        sheet = np.full((*self.size, 3), _PAPER, np.uint8)
        for number, image in enumerate(images):
            (top, left), (height, width) = self.place(number), self._shown
            large = image.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
            sheet[top : top + height, left : left + width] = large
        picture = Image.fromarray(sheet)
        draw = ImageDraw.Draw(picture)
        for x, y, text, room in self._labels():
            draw.text((x, y), _fitted(text, room), fill=_INK, font=_font())
        return np.asarray(picture)

    def _labels(self):
        """(x, y, text, room in pixels) of every label."""
        height, width = self._shown
        for block, title in enumerate(self.blocks):
            top = block * self._block + _GAP
            if title:
                yield self.margin, top, title, self.size[1] - self.margin
            for column, value in enumerate(self.axes[-1][1]):
                _, left = self.place(column)
                yield left, top + _LINE * bool(title), label(self.axes[-1][0], value), width
            if len(self.axes) > 1:
                for row, value in enumerate(self.axes[-2][1]):
                    y, _ = self.place((block * self.rows + row) * self.columns)
                    middle = y + height // 2 - _FONT // 2
                    yield _GAP, middle, label(self.axes[-2][0], value), self.margin - _GAP

    @property
    def _shown(self) -> tuple[int, int]:
        return self.tile[0] * self.scale, self.tile[1] * self.scale

    @property
    def _step(self) -> tuple[int, int]:
        return self._shown[0] + _GAP, self._shown[1] + _GAP

    @property
    def _head(self) -> int:
        return _GAP + _LINE * (1 + (len(self.axes) > 2))

    @property
    def _block(self) -> int:
        return self._head + self.rows * self._step[0]


def label(name: str, value: Any) -> str:
    """ "guidance 7.5": a parameter and its value, numbers without trailing zeros."""
    return f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}"


def _fitted(text: str, room: int) -> str:
    """The text, cut so that it is at most so many pixels wide."""
    if _wide(text) <= room:
        return text
    while text and _wide(text + "…") > room:
        text = text[:-1]
    return text + "…"


def _wide(text: str) -> int:
    return int(_font().getlength(text)) + 1


def _font():
    from PIL import ImageFont

    return ImageFont.load_default(_FONT)
