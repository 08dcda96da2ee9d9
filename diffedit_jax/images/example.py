"""An example picture: read, and prepared for CLIP's image tower as the official code has it."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ..errors import UserError
from .frame import resized
from .read import Picture, read

# CLIP's own mean and deviation of colours in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def read_example(source: Any) -> Picture:
    """A picture that shows what to paint, from whatever `read` takes.

    Errors: UserError if it cannot be read, or is a single row or column of pixels.
    """
    found = read(source)
    height, width = found.pixels.shape[:2]
    if min(height, width) < 2:
        name = found.path or "the picture"
        raise UserError(f"example {name} is {width}x{height} pixels; it shows nothing to paint")
    return found


def prepared_example(
    pixels: UInt8[np.ndarray, "h w 3"], size: int, *, crop: bool = False
) -> Float[np.ndarray, "size size 3"]:
    """(x - mean) / deviation of the picture at size x size, resized bicubically as PIL does.

    Args:
      crop: False squashes the picture, whatever its proportions (Paint by Example's own code);
        True takes the middle square after resizing the shorter side (transformers'
        CLIPImageProcessor, which diffusers uses), so that what lies outside is not seen.

    Source: Paint-by-Example scripts/inference.py; transformers image_processing_clip.py.
    """
    if crop:
        pixels = _middle(_by_shorter_side(pixels, size), size)
    else:
        pixels = resized(pixels, (size, size), "BICUBIC")
    unit = pixels.astype(np.float32) / 255
    return (unit - np.float32(MEAN)) / np.float32(DEVIATION)


def _by_shorter_side(pixels: np.ndarray, size: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    longer = int(size * max(height, width) / min(height, width))
    return resized(pixels, (size, longer) if height <= width else (longer, size), "BICUBIC")


def _middle(pixels: np.ndarray, size: int) -> np.ndarray:
    top, left = ((n - size) // 2 for n in pixels.shape[:2])
    return pixels[top : top + size, left : left + size]
