"""Masks in cells of the latent: from pixels and back, grown, softened. Host code."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..errors import UserError

Masks = Float[np.ndarray, "b h w"]


def in_cells(mask, factor: int) -> Masks:
    """[b, H, W] in pixels -> the mean over each cell of factor x factor pixels."""
    mask = np.asarray(mask, np.float32)
    b, height, width = mask.shape
    cells = mask.reshape(b, height // factor, factor, width // factor, factor)
    return np.clip(cells.mean(axis=(2, 4)), 0, 1)


def in_pixels(cells, factor: int) -> Masks:
    """Every cell as a square of factor x factor pixels."""
    return np.asarray(cells, np.float32).repeat(factor, axis=1).repeat(factor, axis=2)


def dilated(cells: Masks, radius) -> Masks:
    """Grown by a disc of `radius` cells (one radius, or one per picture)."""
    radii = np.broadcast_to(np.asarray(radius, np.float32), (len(cells),))
    if (radii < 0).any():
        raise UserError(f"dilate must not be negative: {radius}")
    return np.stack([_dilated(c, r) for c, r in zip(cells, radii, strict=True)])


def blurred(cells: Masks, deviation) -> Masks:
    """Softened by a Gaussian of `deviation` cells (one, or one per picture); 0 leaves it hard."""
    deviations = np.broadcast_to(np.asarray(deviation, np.float32), (len(cells),))
    if (deviations < 0).any():
        raise UserError(f"blur must not be negative: {deviation}")
    return np.stack([_blurred(c, d) for c, d in zip(cells, deviations, strict=True)])


def _dilated(cells, radius):
    reach = int(radius)
    wide = np.pad(cells, reach)
    height, width = cells.shape
    out = cells
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dy * dy + dx * dx <= radius * radius:
                moved = wide[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
                out = np.maximum(out, moved)
    return out


def _blurred(cells, deviation):
    if deviation == 0:
        return cells
    reach = int(np.ceil(3 * deviation))
    at = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (at / deviation) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        wide = np.pad(cells, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], "edge")
        cells = np.apply_along_axis(np.convolve, axis, wide, weights, "valid")
    return cells.astype(np.float32)
