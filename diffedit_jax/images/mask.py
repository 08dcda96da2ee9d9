"""Reads a mask: white is edited, black is kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .colour import to_rgb, unit_floats
from .read import Picture, checked_path, open_file, upright


def read_mask(source: Any, size: tuple[int, int]) -> np.ndarray:
    """float32 [h, w] in [0, 1]: 1 where the picture is edited, 0 where it is kept.

    Brightness counts; grey stays grey (a soft edge); transparent parts are kept. Arrays may be
    bool, uint8, uint16 or floats in [0, 1]; whole numbers that are all 0 or 1 mean just that.

    Args:
      source: path, PIL image, or array [h, w] or [h, w, 1|3].
      size: (height, width) of the picture that it belongs to.
    Errors: UserError if it is no picture, or not of that size.
    Example: `read_mask("mask.png", picture.pixels.shape[:2])`.
    """
    name = "the mask"
    if isinstance(source, str | os.PathLike):
        name = f"mask {source}"
        checked_path(Path(source), "mask")
        with open_file(Path(source), name) as image:
            mask = _from_pil(image, name)
    elif hasattr(source, "getbands"):
        mask = _from_pil(source, name)
    else:
        array = source.pixels if isinstance(source, Picture) else np.asarray(source)
        mask = _from_array(array, name)
    if mask.shape != tuple(size):
        seen = f"{mask.shape[1]}x{mask.shape[0]}"
        raise UserError(f"{name} is {seen}, but the picture is {size[1]}x{size[0]}")
    return mask


def _from_pil(image, name: str) -> np.ndarray:
    """Brightness over black, so that a transparent part is kept."""
    image = upright(image, name)
    alpha = np.float32(1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"), np.float32) / 255
        image = image.convert("RGB")
    image.info.pop("icc_profile", None)  # a mask holds numbers, not colours
    pixels, _ = to_rgb(image, name)
    return _brightness(pixels.astype(np.float32) / 255) * alpha


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 3 and array.shape[-1] not in (1, 3) or array.ndim not in (2, 3):
        raise UserError(f"{name} has shape {array.shape}; give [h, w]")
    if array.size == 0:
        raise UserError(f"{name} is empty")
    if np.issubdtype(array.dtype, np.integer) and array.min() >= 0 and array.max() <= 1:
        array = array.astype(bool)
    values = unit_floats(array, name)
    return values if values.ndim == 2 else _brightness(values)


def _brightness(values: np.ndarray) -> np.ndarray:
    """[h, w] mean over the colours of [h, w, c]; exact for grey."""
    return values.mean(axis=-1, dtype=np.float64).astype(np.float32)
