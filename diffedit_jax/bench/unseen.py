"""Edits that no training ever showed, for methods whose networks learned editing itself.

`unseen_swap`: two known objects, a swap that the pairs of instructions leave out (one in ten).
`unseen_object`: the new object was held out of all training; only an example can tell what it is.
"""

from __future__ import annotations

import numpy as np

from diffedit_jax.scenes import Edit, sample_edit, sample_scene, world
from diffedit_jax.scenes.edits import swap_object
from diffedit_jax.training.pairs import never_trained

SWAP, OBJECT = "unseen_swap", "unseen_object"
UNSEEN = (SWAP, OBJECT)


def unseen_edits(rng: np.random.Generator, kind: str, count: int) -> list[Edit]:
    """`count` edits of one of `UNSEEN`, in the plain style, of one object in the middle."""
    draw = _swap if kind == SWAP else _object
    found: list[Edit] = []
    while len(found) < count:
        edit = draw(rng, len(found))
        if edit is not None:
            found.append(edit)
    return found


def _swap(rng, _) -> Edit | None:
    edit = sample_edit(rng, "object", style="none")
    return edit if never_trained(edit) else None


def _object(rng, turn) -> Edit | None:
    """The held-out objects take turns."""
    names = tuple(world.HELD_OUT_OBJECTS)
    scene = sample_scene(rng, layout="centre")
    name = names[turn % len(names)]
    seen = world.visible(name, None, scene.background)
    return swap_object(scene, name) if seen and scene.style == "none" else None
