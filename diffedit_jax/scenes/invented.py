"""Objects that nobody has drawn: sprites put together from known ones, each by its number.

They give a network that paints by example more to look at than the sixteen objects it would
otherwise learn by heart. Objects that are held out of training have no part in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from diffedit_jax.scenes import world

Sprite = Float[np.ndarray, "h w 4"]  # straight, not premultiplied, in [0, 1]
_NAME = re.compile(r"invented (\d+)")
_TURN = 25  # degrees, of the whole sprite to either side
_STRIPES = 0.3  # how often


def name_of(number: int) -> str:
    """The name by which a `Thing` asks for it: "invented 7"."""
    return f"invented {number}"


def is_invented(name: object) -> bool:
    """Whether a name is one that `name_of` gives."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def sprite(name: str, known: Callable[[str], Sprite]) -> Sprite:
    """The sprite of an invented name, a pure function of its number and of the known sprites.

    One known object in other colours; in three of four cases mixed with a second one: its lower
    half, a small copy on top, or the surface within the first one's outline; some get stripes. The
    whole is stretched, turned and perhaps mirrored.

    Args:
      name: "invented N".
      known: name of one of `world.OBJECTS` -> its sprite, 64 x 64.
    """
    rng = np.random.default_rng((217_645, int(_NAME.fullmatch(name)[1])))
    names = rng.choice(world.OBJECTS, 2, replace=False)
    one, other = (_tinted(rng, known(str(n))) for n in names)
    mix = (_halves, _worn, _surface, lambda rng, one, other: one)[int(rng.integers(4))]
    mixed = mix(rng, one, other)
    return _warped(rng, _striped(rng, mixed) if rng.random() < _STRIPES else mixed)


def _tinted(rng, rgba):
    """Colours turned about the grey axis, paler or stronger, lighter or darker."""
    angle, strength, gamma = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1.3), rng.uniform(0.6, 1.5)
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.cross(np.eye(3), axis)
    turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross
    turn = turn + (1 - np.cos(angle)) * np.outer(axis, axis)  # Rodrigues' formula
    grey = rgba[..., :3].mean(-1, keepdims=True)
    rgb = np.clip(grey + strength * (rgba[..., :3] - grey) @ turn, 0, 1) ** gamma
    return np.concatenate([rgb, rgba[..., 3:]], -1).astype(np.float32)


def _halves(rng, one, other):
    cut = int(rng.integers(24, 41))
    return np.concatenate([one[:cut], other[cut:]])


def _worn(rng, one, other):
    """A small copy of the other, over the first."""
    size = int(rng.integers(20, 37))
    small = _resampled(other, np.diag([64 / size, 64 / size]), np.zeros(2))[:size, :size]
    top, left = rng.integers(64 - size + 1, size=2)
    part = np.zeros_like(one)
    part[top : top + size, left : left + size] = small
    cover = part[..., 3:]
    rgb = cover * part[..., :3] + (1 - cover) * one[..., :3]
    return np.concatenate([rgb, np.maximum(cover, one[..., 3:])], -1)


def _surface(rng, one, other):
    """The first one's outline, filled with the middle of the other."""
    scale = rng.uniform(0.3, 0.7)
    wide = _resampled(other, np.diag([scale, scale]), np.full(2, 32 * (1 - scale)))
    base = rng.uniform(0, 1, 3)
    rgb = wide[..., 3:] * wide[..., :3] + (1 - wide[..., 3:]) * base
    return np.concatenate([rgb, one[..., 3:]], -1).astype(np.float32)


def _striped(rng, rgba):
    angle, period = rng.uniform(0, np.pi), rng.uniform(8, 18)
    y, x = np.mgrid[:64, :64]
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
    cover = np.clip(3 * (wave - rng.uniform(-0.2, 0.6)), 0, 1)[..., None]
    rgb = cover * rng.uniform(0, 1, 3) + (1 - cover) * rgba[..., :3]
    return np.concatenate([rgb, rgba[..., 3:]], -1).astype(np.float32)


def _warped(rng, rgba):
    angle = np.deg2rad(rng.uniform(-_TURN, _TURN))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag(rng.uniform(1.0, 1.5, 2) * (rng.choice([-1, 1]), 1))
    return _resampled(rgba, matrix, np.full(2, 31.5) - matrix @ np.full(2, 31.5))


def _resampled(rgba, matrix, offset):
    """result(x, y) = rgba(matrix (x, y) + offset), bilinear in premultiplied colour."""
    from PIL import Image

    rows = tuple(np.concatenate([matrix, offset[:, None]], 1).ravel())
    flat = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1).astype(np.float32)
    how = (Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)
    planes = [np.asarray(Image.fromarray(flat[..., k]).transform((64, 64), *how)) for k in range(4)]
    alpha = np.clip(planes[3], 0, 1)[..., None]
    rgb = np.stack(planes[:3], -1) / np.maximum(alpha, 1e-3)
    return np.concatenate([np.clip(rgb, 0, 1), alpha], -1)
