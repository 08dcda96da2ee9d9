"""Invented objects: by number alone, of known parts, and at home in scenes."""

import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.scenes import Scene, Thing, render, world
from diffedit_jax.scenes.invented import is_invented, name_of, sprite
from diffedit_jax.scenes.render import coverage
from diffedit_jax.scenes.sprites import layer


def known(name):
    """A disc whose red tells the name; asking for what is held out fails."""
    y, x = np.mgrid[:64, :64] - 31.5
    disc = (x**2 + y**2 < 28**2).astype(np.float32)
    red = (world.OBJECTS.index(name) + 1) / 20
    return np.stack([disc * red, disc * 0.3, disc * 0.1, disc], -1).astype(np.float32)


def test_names():
    assert is_invented(name_of(12)) and not is_invented("cat") and not is_invented(None)
    assert not is_invented("invented") and not is_invented("invented 1 more")


def test_a_number_is_one_object_and_no_two_are_alike():
    found = [sprite(name_of(n), known) for n in range(12)]
    again = [sprite(name_of(n), known) for n in range(12)]
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    apart = [np.abs(a - b).mean() for i, a in enumerate(found) for b in found[:i]]
    assert min(apart) > 0.01


def test_sprites_are_colours_with_something_to_see():
    for n in range(60):
        one = sprite(name_of(n), known)
        assert one.shape == (64, 64, 4) and one.min() >= 0 and one.max() <= 1
        assert 0.1 < one[..., 3].mean() < 0.9, n


def test_parts_come_from_objects_that_training_may_see():
    asked = []

    def watched(name):
        asked.append(name)
        return known(name)

    for n in range(100):
        sprite(name_of(n), watched)
    assert set(asked) == set(world.OBJECTS)  # and none of the held-out ones


@pytest.mark.parametrize("style", world.STYLES)
def test_scenes_show_them_in_every_style(style):
    scene = Scene((Thing(name_of(3)),), "white", style=style)
    empty = Scene((), "white", style=style)
    changed = np.abs(render(scene).astype(int) - render(empty)).sum(-1) > 0
    cover = coverage(scene) > 0
    assert changed.mean() > 0.05 and not (changed & ~cover).any()
    assert layer(name_of(3), None, 48, style).max() <= 1


def test_other_unknown_names_stay_refused():
    with pytest.raises(UserError, match="unknown object 'invention 3'"):
        Scene((Thing("invention 3"),), "white")
