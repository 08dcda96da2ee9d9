"""Pictures of a folder, squared to the model's size, and their latents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from ..errors import UserError
from ..images import read
from ..notices import tell
from .agree import by_first
from .data import to_unit
from .digests import of_tree
from .folders import files_of
from .kept import forget, is_of, note, noted, per_call

_SAVE = 1000  # pictures after which an encoding notes how far it is


def in_middle(slack: int) -> int:
    """Where a square begins on the longer side, which is `slack` pixels longer."""
    return slack // 2


def read_square(
    source: Any, size: int, begin: Callable[[int], int] = in_middle
) -> UInt8[np.ndarray, "size size 3"]:
    """A square of a picture, as large as fits, scaled to size (Lanczos).

    begin: (how much longer the longer side is) -> where the square begins on it, in pixels.
    """
    from PIL import Image

    pixels = read(source).pixels
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = begin(height - side), begin(width - side)
    square = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    if side == size:
        return square
    return np.array(Image.fromarray(square).resize((size, size), Image.Resampling.LANCZOS))


def readable(source: Any, squared: Callable, size: int, skip_broken: bool) -> Any:
    """squared(source, size); None for a picture that cannot be read, if `skip_broken`, and a line.

    Raises: UserError otherwise, which names skip_broken.
    """
    try:
        return squared(source, size)
    except UserError as error:
        if not skip_broken:
            raise UserError(f"{error} (--set skip_broken=True leaves it out)") from None
        tell(f"left out: {error}")
        return None


def read_folder(
    folder: Path | None,
    size: int,
    *,
    squared: Callable[[Any, int], np.ndarray] = read_square,
    skip_broken: bool = False,
) -> tuple[list[Path], np.ndarray]:
    """(files, uint8 [n, size, size, 3]): every picture of a folder, by name.

    Args:
      squared: (file, size) -> uint8 [size, size, 3].
      skip_broken: leaves out what cannot be read, and says so.
    Raises: UserError for a folder without pictures, and for the first that cannot be read.
    """
    files = files_of(folder)
    found = {path: readable(path, squared, size, skip_broken) for path in files}
    kept = {path: picture for path, picture in found.items() if picture is not None}
    if not kept:
        raise UserError(f"{folder} holds no picture that can be read")
    return list(kept), np.stack(list(kept.values()))


def encode_all(
    model: Any, picture: Callable[[int], Any], count: int, keep: Path, about: dict
) -> np.ndarray:
    """Modes [count, h, w, c] of pictures 0 .. count - 1, not scaled, float16, in the file `keep`.

    It is read again if it is of the same autoencoder and of `about` (what the pictures are, as
    JSON); an encoding that was cut off goes on. Only a part is in memory at any time. A picture
    that is None is left out: its mode is NaN.
    """
    about = {**about, "count": count, "autoencoder": of_tree(model.vae.params)}
    by_first(lambda: _encode(model, picture, count, keep, about))
    return np.load(keep, mmap_mode="r")


def _encode(model, picture, count, keep, about) -> None:
    if is_of(keep, about):
        return
    part, size = keep.with_suffix(".part.npy"), per_call(model.size)
    done = saved = _done(part, about)
    array = np.load(part, mmap_mode="r+") if done else None
    while done < count:
        rows = [picture(i) for i in range(done, min(done + size, count))]
        modes = _modes(model, rows)
        if array is None:
            forget(part)
            array = np.lib.format.open_memmap(part, "w+", modes.dtype, (count, *modes.shape[1:]))
        array[done : done + len(rows)] = modes
        done += len(rows)
        if done - saved >= _SAVE:
            array.flush()
            note(part, {**about, "done": done})
            saved = done
    array.flush()
    forget(keep)
    forget(part)
    part.replace(keep)
    note(keep, about)


def _done(part, about) -> int:
    """How many pictures an encoding of the same things has behind it."""
    found = noted(part) or {}
    done = found.pop("done", 0)
    return done if found == json.loads(json.dumps(about)) else 0


def _modes(model, rows) -> np.ndarray:
    """Modes of pictures; NaN for None, a picture that is left out."""
    blank = np.zeros((model.size, model.size, 3), np.uint8)
    shown = np.stack([blank if row is None else row for row in rows])
    modes = np.array(posterior(model, shown)[0], np.float16)
    modes[[row is None for row in rows]] = np.nan
    return modes


def posterior(model: Any, pictures: np.ndarray) -> tuple[Any, Any]:
    """(mean, deviation) [n, h, w, c] of uint8 pictures, not scaled."""
    mean, logvar = model.vae(to_unit(pictures), method="encode")
    return mean, jax.numpy.exp(0.5 * logvar)
