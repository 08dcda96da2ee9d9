"""Pictures of a folder, squared to the model's size, and their latents."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..errors import UserError
from ..images import read
from ..notices import tell
from .data import to_unit
from .folders import files_of

_PART = 100  # pictures per call of the encoder


def read_square(source: Any, size: int) -> np.ndarray:
    """The middle square of a picture, uint8 [size, size, 3] (Lanczos)."""
    from PIL import Image

    pixels = read(source).pixels
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    if side == size:
        return square
    return np.array(Image.fromarray(square).resize((size, size), Image.Resampling.LANCZOS))


def read_folder(folder: Path | None, size: int, *, skip_broken: bool = False) -> np.ndarray:
    """Every picture of a folder, by name, uint8 [n, size, size, 3].

    Args:
      skip_broken: leaves out what cannot be read, and says so.
    Raises: UserError for a folder without pictures, and for the first that cannot be read.
    """
    found = []
    for path in files_of(folder):
        try:
            found.append(read_square(path, size))
        except UserError as error:
            if not skip_broken:
                raise UserError(f"{error} (--set skip_broken=True leaves it out)") from None
            tell(f"left out: {error}")
    if not found:
        raise UserError(f"{folder} holds no picture that can be read")
    return np.stack(found)


def encode_all(model: Any, pictures: Iterable[np.ndarray], count: int, keep: Path) -> np.ndarray:
    """Modes [count, h, w, c] of pictures, not scaled, float16; kept in `keep` for a resume."""
    if keep.is_file():
        found = np.load(keep, mmap_mode="r")
        if len(found) == count:
            return found
    parts, stream = [], iter(pictures)
    while batch := list(islice(stream, _PART)):
        parts.append(np.asarray(posterior(model, np.stack(batch))[0], np.float16))
    found = np.concatenate(parts)
    temporary = keep.with_suffix(".part.npy")
    np.save(temporary, found)
    temporary.replace(keep)
    return found


def posterior(model: Any, pictures: np.ndarray) -> tuple[Any, Any]:
    """(mean, deviation) [n, h, w, c] of uint8 pictures, not scaled."""
    mean, logvar = model.vae(to_unit(pictures), method="encode")
    return mean, jax.numpy.exp(0.5 * logvar)
