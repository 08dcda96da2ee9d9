"""Paint by Example's training data from rendered scenes, whose boxes are exact."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, UInt8

from ..images.frame import resized
from ..scenes import SIZE, Scene, Thing, render, sample_scene, world
from ..scenes.invented import name_of
from ..scenes.render import coverage
from . import boxes
from .examples import Drawn

_SIZES = (34, 60)  # pixels of an object that is shown alone
_REACH = 6  # pixels by which it stands beside the middle
_BORDER = 8  # pixels of background at most around a crop


def scene_examples(
    seed: int, *, shown: int, curved: float, jitter: int, silhouettes: float, invented: float
) -> Iterator[Drawn]:
    """An endless stream of `scene_example`s."""
    rng, own = np.random.default_rng((130_363, seed)), dict(shown=shown, invented=invented)
    for number in itertools.count():
        yield scene_example(rng, number, curved=curved, jitter=jitter, silhouettes=silhouettes,
                            **own)  # fmt: skip


def scene_example(
    rng: np.random.Generator,
    number: int,
    *,
    shown: int,
    curved: float,
    jitter: int,
    silhouettes: float,
    invented: float,
) -> Drawn:
    """A training scene, one object of which is taken out and shown elsewhere.

    The example is another render of the object: other size and place, background and pattern, cut
    close in half the cases. A copy of its pixels would not fit the hole.

    Args:
      number: which invented object it is, if it is one.
      shown: pixels of the example pictures.
      curved, jitter: of `boxes.hole`.
      silhouettes: share of holes that follow the object's outline, and in half of these that of
        another object in its place too, as an exact mask of a swap does.
      invented: share of objects that no vocabulary has.
    """
    scene = sample_scene(rng)
    index = int(rng.integers(len(scene.things)))
    if rng.random() < invented:
        scene = _with_invented(scene, index, number)
    cover = coverage(scene, index) > 0
    if rng.random() < silhouettes:
        taken = cover | _of_another(rng, scene, index)
    else:
        box = box_of(cover)
        wide = boxes.extended(rng, box, SIZE, SIZE)
        taken = boxes.hole(rng, box, wide, SIZE, SIZE, curved=curved, jitter=jitter)
    alone = another_render(rng, scene.things[index], scene.style)
    example = resized(alone, (shown, shown), "BICUBIC")
    return Drawn(render(scene), 1 - taken.astype(np.float32), example)


def _with_invented(scene: Scene, index: int, number: int) -> Scene:
    things = list(scene.things)
    things[index] = replace(things[index], name=name_of(number), colour=None)
    return replace(scene, things=tuple(things))


def _of_another(rng, scene, index) -> Bool[np.ndarray, "h w"]:
    """Where another object would stand, or nothing."""
    if rng.random() < 0.5:
        return np.zeros((SIZE, SIZE), bool)
    name = str(rng.choice([n for n in world.OBJECTS if n != scene.things[index].name]))
    other = replace(scene.things[index], name=name, colour=None)
    return coverage(replace(scene, things=(other,))) > 0


def box_of(cover: Bool[np.ndarray, "h w"]) -> boxes.Box:
    """The smallest box around what is True."""
    rows, columns = (np.flatnonzero(cover.any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def another_render(
    rng: np.random.Generator, thing: Thing, style: str
) -> UInt8[np.ndarray, "64 64 3"]:
    """The object alone on a background that it stands out from; in half the cases cut close."""
    x, y = (SIZE // 2 + int(d) for d in rng.integers(-_REACH, _REACH + 1, 2))
    alone = Thing(thing.name, thing.colour, x, y, int(rng.integers(*_SIZES)))
    clear = [b for b in world.BACKGROUNDS if world.visible(thing.name, thing.colour, b)]
    pattern = str(rng.choice(world.PATTERNS, p=(0.6, 0.2, 0.2)))
    scene = Scene((alone,), str(rng.choice(clear)), pattern, style)
    picture = render(scene)
    if rng.random() < 0.5:
        margin = int(rng.integers(_BORDER + 1))
        picture = boxes.cut(
            picture, boxes.padded(box_of(coverage(scene) > 0), margin, SIZE, SIZE), SIZE
        )
    return picture
