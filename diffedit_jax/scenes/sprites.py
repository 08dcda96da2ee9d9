"""Sprites of the emoji world: loading, recolouring, and the layer each style makes of them."""

from functools import lru_cache, partial
from importlib.resources import files

import numpy as np

from diffedit_jax.scenes import invented, world

BLOCK = 4  # pixels per block of the pixel art style: one latent cell


def _open(name: str, style: str) -> np.ndarray:
    from PIL import Image

    folder = "3d" if style == "3d render" else "flat"
    path = files("diffedit_jax.scenes") / "sprites" / folder / f"{name}.png"
    with path.open("rb") as handle:
        return np.asarray(Image.open(handle).convert("RGBA"), np.float32) / 255


def _recolour(rgba: np.ndarray, colour: str) -> np.ndarray:
    """Paint the coloured part of a sprite in another hue and keep its light and shade.

    The saturated pixels become colour * (value / reference value); grey pixels stay.
    """
    rgb = rgba[..., :3]
    value, low = rgb.max(-1), rgb.min(-1)
    saturation = (value - low) / np.maximum(value, 1e-3)
    weight = np.clip((saturation - 0.25) / 0.25, 0, 1)[..., None]
    body = (rgba[..., 3] > 0.5) & (saturation > 0.5)
    # Light by the mean of all channels, so that a highlight in a strong red still shows.
    light = 0.6 * value + 0.4 * rgb.mean(-1)
    shade = (light / np.median(light[body]))[..., None]
    target = np.asarray(world.COLOURS[colour], np.float32) / 255
    painted = target * np.minimum(shade, 1) + (1 - target) * np.clip(shade - 1, 0, 1)
    return np.concatenate([weight * painted + (1 - weight) * rgb, rgba[..., 3:]], -1)


def _resize(rgba: np.ndarray, size: int) -> np.ndarray:
    """Resample premultiplied colour, so that transparent pixels leave no fringe."""
    from PIL import Image

    rgba = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1)
    planes = [
        Image.fromarray(rgba[..., k]).resize((size, size), Image.Resampling.LANCZOS)
        for k in range(4)
    ]
    out = np.clip(np.stack([np.asarray(p) for p in planes], -1), 0, 1)
    return np.minimum(out, np.concatenate([out[..., 3:]] * 3 + [np.ones_like(out[..., 3:])], -1))


def _pixel_art(layer: np.ndarray) -> np.ndarray:
    """Blocks of BLOCK pixels, hard edges and eight levels per channel."""
    alpha = (layer[..., 3:] > 0.45).astype(np.float32)
    colour = np.round(layer[..., :3] / np.maximum(layer[..., 3:], 1e-3) * 7) / 7
    blocks = np.concatenate([colour * alpha, alpha], -1)
    return blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)


def _blur(plane: np.ndarray, sigma: float) -> np.ndarray:
    reach = int(3 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        plane = np.apply_along_axis(lambda row: np.convolve(row, kernel, "same"), axis, plane)
    return plane


def _neon(layer: np.ndarray) -> np.ndarray:
    """Glowing outlines of the sprite over a dark body; the saturated colours of the sprite."""
    padded = np.pad(layer, ((4, 4), (4, 4), (0, 0)))
    rgb, alpha = padded[..., :3], padded[..., 3]
    gradient = sum(
        np.hypot(*np.gradient(plane)) for plane in (rgb[..., 0], rgb[..., 1], rgb[..., 2], alpha)
    )
    line = np.clip(1.3 * _blur(gradient, 0.5), 0, 1)
    colour = _blur_colour(rgb, alpha)
    glow = 0.55 * _blur(line, 1.8)
    light = np.clip(line + glow, 0, 1)[..., None] * colour
    light = light + 0.35 * (line**2)[..., None] * (1 - colour)
    body = 0.3 * rgb * (1 - line[..., None])
    opacity = np.maximum(0.75 * alpha, np.clip(line + glow, 0, 1))
    return np.concatenate([light + body, opacity[..., None]], -1)


def _blur_colour(rgb, alpha):
    """The sprite's colours spread over its edge and made bright, so that outlines have a hue."""
    spread = np.stack([_blur(rgb[..., k], 1.5) for k in range(3)], -1)
    spread = spread / np.maximum(_blur(alpha, 1.5), 1e-2)[..., None]
    bright = spread / np.maximum(spread.max(-1, keepdims=True), 1e-2)
    low = bright.min(-1, keepdims=True)
    return np.clip(bright - 0.6 * low * (1 - low), 0, 1)


@lru_cache(maxsize=4096)
def layer(name: str, colour: str | None, size: int, style: str) -> np.ndarray:
    """The premultiplied RGBA layer [h, w, 4] in [0, 1] of one object at one size and style.

    Names: those of the world, and `invented.name_of(number)`.
    """
    known = partial(_open, style=style)
    rgba = invented.sprite(name, known) if invented.is_invented(name) else known(name)
    rgba = _recolour(rgba, colour) if colour else rgba
    if style == "pixel art":
        return _pixel_art(_resize(rgba, round(size / BLOCK)))
    resized = _resize(rgba, size)
    return np.clip(_neon(resized), 0, 1) if style == "neon sign" else resized
