"""From a scene to pixels, and the exact coverage of its objects."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from diffedit_jax.scenes import sprites, world
from diffedit_jax.scenes.spec import SIZE, Scene, Thing

_SECOND_TONE = 0.22  # how far stripes and dots go towards black, or white on black


def _pattern(pattern: str) -> np.ndarray:
    """Coverage [h, w] in [0, 1] of the second tone, antialiased by 4x4 supersampling."""
    y, x = (np.mgrid[: SIZE * 4, : SIZE * 4] + 0.5) / 4
    if pattern == "plain":
        fine = np.zeros_like(x)
    elif pattern == "striped":
        fine = (x + y) % 16 < 8
    else:
        column = (x % 16 - 8) ** 2 + (y % 16 - 8) ** 2
        staggered = ((x + 8) % 16 - 8) ** 2 + ((y + 8) % 16 - 8) ** 2
        fine = np.minimum(column, staggered) < 3.6**2
    return fine.reshape(SIZE, 4, SIZE, 4).mean((1, 3)).astype(np.float32)


@lru_cache(maxsize=256)
def ground(background: str, pattern: str, style: str) -> np.ndarray:
    """The background alone, [64, 64, 3] in [0, 1]."""
    base = np.asarray(world.BACKGROUNDS[background], np.float32) / 255
    towards = 1.0 if base.max() < 0.3 else 0.0
    second = base + (towards - base) * _SECOND_TONE
    cover = _pattern(pattern)[..., None]
    if style == "pixel art":
        index = np.minimum(np.arange(SIZE) // sprites.BLOCK * sprites.BLOCK + 1, SIZE - 1)
        cover = (cover[index][:, index] > 0.5).astype(np.float32)
    picture = base * (1 - cover) + second * cover
    return picture * (0.4 if style == "neon sign" else 1.0)


def _window(thing: Thing, style: str):
    """Where the layer of a thing falls: its layer and the slices of the picture and the layer."""
    layer = sprites.layer(thing.name, thing.colour, thing.size, style)
    height, width = layer.shape[:2]
    top, left = thing.y - height // 2, thing.x - width // 2
    if style == "pixel art":  # blocks of the object sit on the blocks of the background
        top, left = (round(v / sprites.BLOCK) * sprites.BLOCK for v in (top, left))
    rows = slice(max(top, 0), min(top + height, SIZE))
    columns = slice(max(left, 0), min(left + width, SIZE))
    part = layer[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return part, (rows, columns)


def coverage(scene: Scene, index: int | None = None) -> np.ndarray:
    """Opacity [64, 64] in [0, 1] of all things of a scene, or of one of them."""
    clear = np.ones((SIZE, SIZE), np.float32)
    for thing in scene.things if index is None else scene.things[index : index + 1]:
        part, where = _window(thing, scene.style)
        clear[where] *= 1 - part[..., 3]
    return 1 - clear


def render(scene: Scene) -> np.ndarray:
    """The picture of a scene, uint8 [64, 64, 3].

    picture = layer + (1 - opacity) * picture, from the background to the last thing.
    """
    picture = ground(scene.background, scene.pattern, scene.style).copy()
    for thing in scene.things:
        part, where = _window(thing, scene.style)
        picture[where] = part[..., :3] + (1 - part[..., 3:]) * picture[where]
    return np.round(picture * 255).clip(0, 255).astype(np.uint8)


def render_batch(scenes: Sequence[Scene]) -> np.ndarray:
    """The pictures of many scenes, uint8 [n, 64, 64, 3]."""
    return np.stack([render(scene) for scene in scenes])
