"""Boxes in pictures, and the holes around them that Paint by Example learns to fill.

A box is (left, top, right, bottom) in pixels, right and bottom exclusive. All draws come from the
generator that a function is given.
Source: Yang et al. 2022, section 3.3; Fantasy-Studio/Paint-by-Example ldm/data/open-images.py.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ..errors import UserError
from ..images.frame import resized

Box = tuple[int, int, int, int]
AREAS = (0.02, 0.8)  # of the picture: smaller and larger boxes are not trained on
_ROOM = 0.4  # of the free space on a side, by which a hole may be larger than its box
_CLOSER = 0.6  # of the free space inside the square, by which the square may shrink


def check_box(box: Box, height: int, width: int, where: str) -> Box:
    """The box as whole numbers. Raises UserError if it is empty or not inside the picture."""
    left, top, right, bottom = found = tuple(int(x) for x in box)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise UserError(
            f"{where}: the box {found} (left, top, right, bottom) is empty or reaches out of the "
            f"picture of {width}x{height} pixels"
        )
    return found


def share_of(box: Box, height: int, width: int) -> float:
    """The part of the picture that a box covers."""
    left, top, right, bottom = box
    return (right - left) * (bottom - top) / (height * width)


def padded(box: Box, margin: int, height: int, width: int) -> Box:
    """The box with `margin` pixels more on each side, as far as there are any."""
    left, top, right, bottom = box
    return (max(left - margin, 0), max(top - margin, 0),
            min(right + margin, width), min(bottom + margin, height))  # fmt: skip


def extended(rng: np.random.Generator, box: Box, height: int, width: int) -> Box:
    """The box, each side further out by U{0 .. floor(0.4 * free space on that side)}."""
    left, top, right, bottom = box
    free = (left, top, width - right, height - bottom)
    more = [int(rng.integers(int(_ROOM * space) + 1)) for space in free]
    return left - more[0], top - more[1], right + more[2], bottom + more[3]


def curve(box: Box, wide: Box) -> Float[np.ndarray, "points 2"]:
    """Points (x, y) around the box, clockwise from its upper left, bulging to the extended one.

    Four quadratic Bezier curves between neighbouring corners, whose middle control point is the
    middle of the same side moved out to the extended box:
    (1-t)^2 a + 2 t (1-t) m + t^2 b at t = 0.05 .. 0.90 in steps of 0.05. A point whose x or y is
    that of an earlier point of its curve, to the last bit, is left out, as in the original.
    """
    left, top, right, bottom = box
    across, down = (left + right) / 2, (top + bottom) / 2
    sides = (
        ((left, top), (across, wide[1]), (right, top)),
        ((right, top), (wide[2], down), (right, bottom)),
        ((right, bottom), (across, wide[3]), (left, bottom)),
        ((left, bottom), (wide[0], down), (left, top)),
    )
    return np.concatenate([_distinct(_quadratic(*side)) for side in sides])


def _quadratic(start, middle, end):
    t = (np.arange(1, 19) * 0.05)[:, None]
    a, m, b = (np.asarray(point, np.float64) for point in (start, middle, end))
    return ((1 - t) * a + 2 * t * m) * (1 - t) + t * t * b


def _distinct(points):
    kept: list = []
    for x, y in points.tolist():
        if all(x != a and y != b for a, b in kept):
            kept.append((x, y))
    return np.asarray(kept)


def blob(
    rng: np.random.Generator, box: Box, wide: Box, height: int, width: int, jitter: int = 5
) -> Bool[np.ndarray, "h w"]:
    """The filled polygon of `curve`, every point moved by U{-jitter .. jitter} in x and in y."""
    from PIL import Image, ImageDraw

    points = curve(box, wide)
    points = points + rng.integers(-jitter, jitter + 1, points.shape)
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in points.tolist()], fill=1)
    return np.array(canvas)


def rectangle(box: Box, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """True inside the box."""
    left, top, right, bottom = box
    found = np.zeros((height, width), bool)
    found[top:bottom, left:right] = True
    return found


def hole(
    rng: np.random.Generator,
    box: Box,
    wide: Box,
    height: int,
    width: int,
    *,
    curved: float = 0.5,
    jitter: int = 5,
) -> Bool[np.ndarray, "h w"]:
    """Where the object is taken out: a `blob` with probability `curved`, else the extended box.

    The blob may miss a corner of the box. One that jitter has closed becomes the box itself.
    """
    if rng.random() >= curved:
        return rectangle(wide, height, width)
    found = blob(rng, box, wide, height, width, jitter)
    return found if found.any() else rectangle(box, height, width)


def square_around(rng: np.random.Generator, wide: Box, height: int, width: int) -> Box:
    """A square of the picture that holds the extended box; the whole picture where none does.

    As high (or wide) as the picture and at a random place, then smaller by
    U{0 .. floor(0.6 * least distance to the box)} on all sides. A square picture is taken whole.
    """
    side = min(height, width)
    begin, end, length = (0, 2, width) if width > height else (1, 3, height)
    least, most = max(wide[end] - side, 0), min(wide[begin] + side, length) - side
    if height == width or most <= least:
        return 0, 0, width, height
    place = int(rng.integers(least, most + 1))
    left, top = (place, 0) if width > height else (0, place)
    free = min(wide[0] - left, wide[1] - top, left + side - wide[2], top + side - wide[3])
    less = int(rng.integers(int(_CLOSER * free) + 1))
    return left + less, top + less, left + side - less, top + side - less


def cut(
    picture: UInt8[np.ndarray, "h w 3"], box: Box, side: int, kind: str = "BICUBIC"
) -> UInt8[np.ndarray, "side side 3"]:
    """What a box shows, squashed to side x side as example pictures are."""
    left, top, right, bottom = box
    return resized(picture[top:bottom, left:right], (side, side), kind)
