"""Drawing scenes: deterministic, and never what is held out."""

import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.scenes import Scene, Thing, place, sample_scene, world


def draw(seed, count, **choices):
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, **choices) for _ in range(count)]


def test_the_same_seed_gives_the_same_scenes():
    assert draw(3, 50) == draw(3, 50)
    assert draw(3, 50) != draw(4, 50)


def test_training_scenes_hold_nothing_held_out():
    for scene in draw(0, 3000):
        for thing in scene.things:
            assert (thing.name, scene.background) not in world.HELD_OUT_PAIRS
            assert thing.name not in world.HELD_OUT_OBJECTS


def test_held_out_scenes_are_all_held_out():
    pairs = {(s.things[0].name, s.background) for s in draw(1, 400, held_out=True, layout="centre")}
    assert pairs == set(world.HELD_OUT_PAIRS)


def test_about_a_tenth_of_the_pairs_is_held_out():
    pairs = [
        (name, ground)
        for name in world.OBJECTS
        for ground in world.BACKGROUNDS
        if world.visible(name, None, ground)
    ]
    assert 0.07 < len(world.HELD_OUT_PAIRS) / len(pairs) < 0.13
    assert set(world.HELD_OUT_PAIRS) <= set(pairs)
    per_object = [sum(held == name for held, _ in world.HELD_OUT_PAIRS) for name in world.OBJECTS]
    assert max(per_object) == 1


def test_every_part_of_the_world_occurs():
    scenes = draw(5, 3000)
    assert {t.name for s in scenes for t in s.things} == set(world.OBJECTS)
    assert {s.background for s in scenes} == set(world.BACKGROUNDS)
    assert {s.pattern for s in scenes} == set(world.PATTERNS)
    assert {s.style for s in scenes} == set(world.STYLES)
    assert {s.layout for s in scenes} == set(world.LAYOUTS)
    assert 0.12 < np.mean([s.layout == "pair" for s in scenes]) < 0.25


def test_no_object_melts_into_its_background():
    for scene in draw(6, 2000):
        for thing in scene.things:
            assert thing.colour != scene.background
            assert (thing.colour is not None) == (thing.name in world.RECOLOURABLE)


def test_places():
    for where in ("centre", "left", "right"):
        assert place("cat", None, where).place == where
        rng = np.random.default_rng(0)
        assert {place("cat", None, where, rng).place for _ in range(50)} == {where}


@pytest.mark.parametrize(
    "change", [{"background": "beige"}, {"pattern": "checked"}, {"style": "oil painting"}]
)
def test_unknown_words_are_refused_with_the_known_ones(change):
    with pytest.raises(UserError, match="choose one of"):
        Scene((Thing("cat"),), **{"background": "blue", **change})
    with pytest.raises(UserError, match="unknown object 'unicorn'"):
        Scene((Thing("unicorn"),), "blue")
