"""What is done to an example picture before it is shown: flip, rotation, blur, elastic bending.

Numbers of pixels are those of a picture of 224 and are scaled with its side.
Source: Fantasy-Studio/Paint-by-Example ldm/data/open-images.py (random_trans);
albumentations 0.4.3, the defaults of HorizontalFlip, Rotate, Blur and ElasticTransform.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

Pixels = UInt8[np.ndarray, "s s 3"]
SIDE = 224
FLIP, ROTATE, BLUR, BEND = 0.5, 0.5, 0.3, 0.3  # how often
DEGREES = 20  # of rotation at most, to either side
KERNELS = (3, 5, 7)  # sides of the box that blurs
SHIFT = 50  # pixels by which each corner of the bent triangle moves at most


def augmented(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """The example as the network is shown it; drawn anew each time."""
    if rng.random() < FLIP:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    if rng.random() < ROTATE:
        pixels = warped(pixels, rotation(rng.uniform(-DEGREES, DEGREES), len(pixels)))
    if rng.random() < BLUR:
        pixels = blurred(pixels, int(rng.choice(KERNELS)))
    if rng.random() < BEND:
        pixels = warped(pixels, bending(rng, len(pixels)))
    return pixels


def rotation(degrees: float, side: int) -> Float[np.ndarray, "2 3"]:
    """From pixels of the result to pixels (x, y) of the source: a turn about the middle."""
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.full(2, side / 2)
    return np.concatenate([matrix, (middle - matrix @ middle)[:, None]], 1)


def bending(rng: np.random.Generator, side: int) -> Float[np.ndarray, "2 3"]:
    """A random affine map: three corners of the middle square move by U(-50, 50) in x and y.

    The field of small shifts that the original adds (alpha 1, sigma 50) moves a pixel by about
    0.003 (standard deviation 1 / sqrt(3 * 4 pi 50^2)) and is left out.
    """
    middle, reach = side // 2, side // 3
    corners = np.array([(reach, reach), (reach, -reach), (-reach, -reach)]) + float(middle)
    moved = corners + rng.uniform(-1, 1, (3, 2)) * SHIFT * side / SIDE
    return np.linalg.solve(np.c_[moved, np.ones(3)], corners).T


def warped(pixels: Pixels, source: Float[np.ndarray, "2 3"]) -> Pixels:
    """result(x, y) = pixels(source (x, y, 1)), bilinear, mirrored at the edges (not doubled)."""
    side = len(pixels)
    y, x = np.mgrid[:side, :side]
    at = np.tensordot(source, np.stack([x, y, np.ones_like(x)]), 1)  # [2, side, side]
    low = np.floor(at).astype(int)
    part = (at - low)[..., None]
    columns, rows = ([mirrored(axis + k, side) for k in (0, 1)] for axis in low)
    upper, lower = (
        pixels[row, columns[0]] * (1 - part[0]) + pixels[row, columns[1]] * part[0] for row in rows
    )
    return np.round(upper * (1 - part[1]) + lower * part[1]).astype(np.uint8)


def mirrored(index: np.ndarray, count: int) -> np.ndarray:
    """Indices beyond the ends, reflected: ... 2 1 0 1 2 ... n-2 n-1 n-2 ..."""
    index = np.abs(index) % (2 * count - 2)
    return np.minimum(index, 2 * count - 2 - index)


def blurred(pixels: Pixels, kernel: int) -> Pixels:
    """The mean over a box of `kernel` pixels at side 224, its radius scaled with the side."""
    from PIL import Image, ImageFilter

    radius = (kernel - 1) / 2 * len(pixels) / SIDE
    return np.array(Image.fromarray(pixels).filter(ImageFilter.BoxBlur(radius)))
