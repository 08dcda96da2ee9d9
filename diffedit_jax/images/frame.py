"""How a picture of any size is fitted to a model, and how the result is cut out again.

The longer side becomes the model's native size (or `longest`), the shorter side follows; the
canvas is that, rounded up to whole cells of the network, and what the picture does not cover is
filled by repeating its edge. A mask takes the same way, with "keep" around it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Frame:
    """Where one picture sits on the canvas that a model sees; sizes are (height, width).

    Attributes:
      original: size of the picture as it was read.
      scaled: size after resizing.
      canvas: size of what the model sees; at least `scaled`, the picture in its middle.

    Example: `frame = Frame.fit((480, 640), 512, 64); frame.canvas == (384, 512)`.
    """

    original: tuple[int, int]
    scaled: tuple[int, int]
    canvas: tuple[int, int]

    @classmethod
    def fit(cls, size: Sequence[int], longest: int, multiple: int) -> Frame:
        """The frame of a picture of `size`.

        scaled = max(1, round(size * longest / max(size))),  canvas = ceil(scaled / m) * m

        Args:
          size: (height, width) of the picture, or its shape.
          longest: length of the longer side in pixels (native size: 512 for SD 1.5, 64 for emoji).
          multiple: m, the canvas' grain in pixels, native size / 8.
        """
        height, width = (int(n) for n in size[:2])
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
        return np.pad(resized(pixels, self.scaled, "LANCZOS"), (*self._margins(), (0, 0)), "edge")

    def apply_mask(self, mask: np.ndarray) -> np.ndarray:
        """float32 [h, w] -> float32 [H, W] (area average; 0, "keep", around the picture)."""
        return np.pad(resized(mask.astype(np.float32), self.scaled, "BOX"), self._margins())

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


def common_frames(sizes: Sequence[Sequence[int]], longest: int, multiple: int) -> list[Frame]:
    """Frames of several pictures on one canvas, the largest that any of them needs.

    Example: a 512x384 and a 384x512 picture share a canvas of 512x512.
    """
    frames = [Frame.fit(size, longest, multiple) for size in sizes]
    canvas = tuple(max(frame.canvas[axis] for frame in frames) for axis in (0, 1))
    return [dataclasses.replace(frame, canvas=canvas) for frame in frames]


def resized(array: np.ndarray, size: tuple[int, int], kind: str) -> np.ndarray:
    """Resizes uint8 [h, w, 3] or float32 [h, w] by a filter of PIL; equal sizes are untouched."""
    if array.shape[:2] == tuple(size):
        return array
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(array))
    return np.array(image.resize(size[::-1], getattr(Image.Resampling, kind)))
