"""Every mode and number type of a picture, made uint8 sRGB [h, w, 3]."""

from __future__ import annotations

import io

import numpy as np

from ..errors import UserError

_DEEP = ("I", "F")  # and I;16, I;16L, I;16B, I;16N


def to_rgb(image, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(uint8 [h, w, 3], notices) of a decoded PIL image of any mode.

    Transparency is laid over white: c = a c + (1 - a) 255. An embedded colour profile is
    converted to sRGB.
    """
    if image.mode in _DEEP or image.mode.startswith("I;16"):
        grey, notices = _deep(image, name)
        return np.repeat(grey[..., None], 3, axis=-1), notices
    image, notices = _in_srgb(image, name)
    if image.has_transparency_data or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        pixels, more = _over_white(np.asarray(image.convert("RGBA")), name)
        return pixels, (*notices, *more)
    return np.array(image.convert("RGB")), notices


def from_array(array: np.ndarray, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(uint8 [h, w, 3], notices) of an array [h, w] or [h, w, 1|2|3|4] in any number type."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 2, 3, 4) or 0 in array.shape:
        raise UserError(f"{name} has shape {array.shape}; give [h, w, 3] or a batch [b, h, w, 3]")
    pixels = _bytes_of(array, name)
    if pixels.shape[-1] in (1, 2):
        colour = np.repeat(pixels[..., :1], 3, axis=-1)
        pixels = np.concatenate([colour, pixels[..., 1:]], axis=-1)
    if pixels.shape[-1] == 4:
        return _over_white(pixels, name)
    return np.array(pixels), ()


def unit_floats(array: np.ndarray, name: str) -> np.ndarray:
    """The array in float32 [0, 1]: floats as they are, whole numbers over their type's range."""
    if array.dtype == bool:
        return array.astype(np.float32)
    if array.dtype in (np.uint8, np.uint16):
        return array.astype(np.float32) / np.iinfo(array.dtype).max
    if not (np.issubdtype(array.dtype, np.floating) or array.dtype.name == "bfloat16"):
        raise UserError(
            f"{name} has type {array.dtype}; give uint8, uint16, bool or floats in 0..1"
        )
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds NaN or infinity")
    if array.min() < 0 or array.max() > 1:
        seen = f"{array.min():.4g} to {array.max():.4g}"
        raise UserError(f"{name} holds floats from {seen}; scale them to 0..1 or give uint8")
    return array


def _bytes_of(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    return np.round(unit_floats(array, name) * 255).astype(np.uint8)


def _deep(image, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """16-bit, 32-bit and float grey: scaled by what the values span, never clipped."""
    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16"):
        return _scaled(values, 0, 65535), ()
    if not np.isfinite(values).all():
        raise UserError(f"{name} holds NaN or infinity")
    low, high = float(values.min()), float(values.max())
    tops = (1, 255, 65535) if image.mode == "F" else (255, 65535)
    top = next((top for top in tops if low >= 0 and high <= top), None)
    low, high = (0, top) if top else (low, high)
    notice = f"{name} holds {image.mode} values; {low:g}..{high:g} is taken as black..white"
    return _scaled(values, low, high), (notice,)


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.round((values - low) / max(high - low, 1e-30) * 255).clip(0, 255).astype(np.uint8)


def _over_white(rgba: np.ndarray, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    alpha = rgba[..., 3:].astype(np.float32) / 255
    if alpha.min() == 1:
        return np.array(rgba[..., :3]), ()
    pixels = np.round(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return pixels, (f"{name} has transparent parts; they are laid over white",)


def _in_srgb(image, name: str):
    """(image, notices): an embedded colour profile other than sRGB is converted."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image, ()
    try:
        from PIL import ImageCms

        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image, ()
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        target = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, target, outputMode=mode), ()
    except Exception:  # a broken profile, or Pillow built without colour management
        return image, (f"{name} has a colour profile that cannot be used; colours may be off",)
