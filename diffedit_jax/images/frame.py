"""How a picture of any size is fitted to a model, and how the result is cut out again.

The longer side becomes the model's native size (or `longest`), the shorter side follows; the
canvas is that, rounded up to whole cells of the network, and what the picture does not cover is
filled by repeating its edge. A mask takes the same way, with "keep" around it.

The other rule cuts: the picture fills the canvas, and what hangs over at its longer side is lost.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ..errors import UserError


@dataclasses.dataclass(frozen=True)
class Frame:
    """Where one picture sits on the canvas that a model sees; sizes are (height, width).

    Attributes:
      original: size of the picture as it was read.
      scaled: size after resizing.
      canvas: size of what the model sees; at least `scaled`, the picture in its middle.
      cut: the picture fills the canvas instead, its middle cut to the canvas' shape.

    Example: `frame = Frame.fit((480, 640), 512, 64); frame.canvas == (384, 512)`.
    """

    original: tuple[int, int]
    scaled: tuple[int, int]
    canvas: tuple[int, int]
    cut: bool = False

    @classmethod
    def fit(cls, size: Sequence[int], longest: int, multiple: int, cut: bool = False) -> Frame:
        """The frame of a picture of `size`.

        scaled = max(1, round(size * longest / max(size))),  canvas = ceil(scaled / m) * m

        Args:
          size: (height, width) of the picture, or its shape.
          longest: length of the longer side in pixels (native size: 512 for SD 1.5, 64 for emoji).
          multiple: m, the canvas' grain in pixels, native size / 8.
          cut: by the rule of `cut_size` instead.
        """
        height, width = (int(n) for n in size[:2])
        if cut:
            canvas = cut_size((height, width), longest, multiple)
            return cls((height, width), canvas, canvas, cut=True)
        ratio = longest / max(height, width)
        scaled = tuple(max(1, round(n * ratio)) for n in (height, width))
        canvas = tuple(-(-n // multiple) * multiple for n in scaled)
        return cls((height, width), scaled, canvas)

    @property
    def offset(self) -> tuple[int, int]:
        """(top, left) of the picture on the canvas."""
        return tuple((c - s) // 2 for c, s in zip(self.canvas, self.scaled, strict=True))

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [h, w, 3] -> uint8 [H, W, 3] on the canvas (Lanczos; edges repeated).

        A picture that already fits comes back bit for bit.
        """
        if self.cut:
            return filled(pixels, self.canvas, "LANCZOS")
        return np.pad(resized(pixels, self.scaled, "LANCZOS"), (*self._margins(), (0, 0)), "edge")

    def apply_mask(self, mask: np.ndarray) -> np.ndarray:
        """float32 [h, w] -> float32 [H, W] (area average; 0, "keep", around the picture)."""
        mask = mask.astype(np.float32)
        if self.cut:
            return filled(mask, self.canvas, "BOX")
        return np.pad(resized(mask, self.scaled, "BOX"), self._margins())

    def restore(self, pixels: np.ndarray, *, original: bool = False) -> np.ndarray:
        """uint8 [..., H, W, c] -> [..., h, w, c]: the picture's part of the canvas.

        Args:
          original: also resize back to the size the picture was read in (Lanczos).
        """
        (top, left), (height, width) = self.offset, self.scaled
        cut = pixels[..., top : top + height, left : left + width, :]
        if not original or self.scaled == self.original:
            return np.ascontiguousarray(cut)
        flat = cut.reshape(-1, *cut.shape[-3:])
        back = np.stack([resized(one, self.original, "LANCZOS") for one in flat])
        return back.reshape(*cut.shape[:-3], *back.shape[1:])

    def _margins(self):
        pairs = zip(self.canvas, self.scaled, self.offset, strict=True)
        return tuple((start, total - size - start) for total, size, start in pairs)


def common_frames(
    sizes: Sequence[Sequence[int]], longest: int, multiple: int, cut: bool = False
) -> list[Frame]:
    """Frames of several pictures on one canvas, the largest that any of them needs.

    Raises: UserError for pictures that are cut to different canvases.

    Example: a 512x384 and a 384x512 picture share a canvas of 512x512.
    """
    frames = [Frame.fit(size, longest, multiple, cut) for size in sizes]
    if cut and len({frame.canvas for frame in frames}) > 1:
        sides = " and ".join(sorted({_sides(frame.canvas) for frame in frames}))
        raise UserError(f"the pictures are cut to {sides}; edit those of one size at a time")
    canvas = tuple(max(frame.canvas[axis] for frame in frames) for axis in (0, 1))
    return [dataclasses.replace(frame, canvas=canvas) for frame in frames]


def cut_size(size: tuple[int, int], longest: int, multiple: int) -> tuple[int, int]:
    """The canvas of a picture that is cut, (height, width), in whole cells of m pixels.

    r = ceil(min(size) (longest / max(size)) / m) m / min(size),  canvas = floor(size r / m) m
    in float64 and in this order: where size r falls short of a whole cell by rounding, the script
    loses that cell, and so does this. The longer side may come out longer than `longest`.

    Raises: UserError where it would come out more than twice as long (a picture like a ribbon).
    Source: timothybrooks/instruct-pix2pix edit_cli.py, main (m = 64).
    """
    ratio = longest / max(size)
    ratio = math.ceil(min(size) * ratio / multiple) * multiple / min(size)
    canvas = tuple(int((n * ratio) // multiple) * multiple for n in size)
    if not 0 < min(canvas) <= max(canvas) <= 2 * longest:
        raise UserError(f"a picture of {_sides(size)} would be cut to {_sides(canvas)}; "
                        'leave compat="official" out')  # fmt: skip
    return canvas


def filled(array: np.ndarray, size: tuple[int, int], kind: str) -> np.ndarray:
    """The middle of uint8 [h, w, 3] or float32 [h, w], of the shape of `size`, resized to it."""
    from PIL import Image, ImageOps

    image = Image.fromarray(np.ascontiguousarray(array))
    return np.array(ImageOps.fit(image, size[::-1], getattr(Image.Resampling, kind)))


def _sides(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"


def resized(array: np.ndarray, size: tuple[int, int], kind: str) -> np.ndarray:
    """Resizes uint8 [h, w, 3] or float32 [h, w] by a filter of PIL; equal sizes are untouched."""
    if array.shape[:2] == tuple(size):
        return array
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(array))
    return np.array(image.resize(size[::-1], getattr(Image.Resampling, kind)))
