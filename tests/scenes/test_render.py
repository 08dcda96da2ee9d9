"""Pictures of scenes: deterministic, in range, and each word of a caption shows."""

import time
from dataclasses import replace

import numpy as np
import pytest

from diffedit_jax.scenes import Scene, place, render, render_batch, sample_scene, world
from diffedit_jax.scenes.render import coverage, ground


def scenes(count, seed=0):
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, held_out=None) for _ in range(count)]


def test_a_scene_always_gives_the_same_picture():
    from diffedit_jax.scenes import sprites

    before = render_batch(scenes(50))
    sprites.layer.cache_clear()
    ground.cache_clear()
    assert before.dtype == np.uint8 and before.shape == (50, 64, 64, 3)
    assert (before == render_batch(scenes(50))).all()


def test_rendering_takes_less_than_a_millisecond():
    drawn = scenes(200)
    render_batch(drawn)  # sprites are read once
    start = time.process_time()
    render_batch(drawn)
    assert (time.process_time() - start) / 200 < 1e-3


@pytest.mark.parametrize("background", list(world.BACKGROUNDS))
def test_the_background_has_its_colour(background):
    corner = render(Scene((place("cat", None, "centre"),), background))[0, 0]
    assert tuple(corner) == world.BACKGROUNDS[background]


@pytest.mark.parametrize("style", world.STYLES)
@pytest.mark.parametrize("name", [*world.OBJECTS, *world.HELD_OUT_OBJECTS])
def test_every_object_shows_in_every_style(name, style):
    colour = "red" if name in world.RECOLOURABLE else None
    scene = Scene((place(name, colour, "centre"),), "blue", style=style)
    cover = coverage(scene)
    assert cover.min() >= 0 and cover.max() <= 1
    assert 0.1 < (cover > 0.5).mean() < 0.6
    bare = np.round(ground("blue", "plain", style) * 255)
    assert (render(scene)[cover == 0] == bare[cover == 0]).all()
    different = np.abs(render(scene).astype(int) - bare).max(-1)
    assert (different > 40)[cover > 0.9].mean() > 0.3


@pytest.mark.parametrize("name", world.RECOLOURABLE)
@pytest.mark.parametrize("colour", list(world.COLOURS))
def test_colours_show(name, colour):
    scene = Scene((place(name, colour, "centre"),), "white")
    inside = render(scene)[coverage(scene) > 0.95].astype(float)
    distances = {
        other: np.linalg.norm(np.median(inside, 0) - rgb) for other, rgb in world.COLOURS.items()
    }
    assert min(distances, key=distances.get) == colour


def test_patterns_and_styles_change_the_picture():
    plain = Scene((place("cat", None, "centre"),), "blue")
    pictures = [render(plain)]
    pictures += [render(replace(plain, pattern=pattern)) for pattern in world.PATTERNS[1:]]
    pictures += [render(replace(plain, style=style)) for style in world.STYLES[1:]]
    for k, one in enumerate(pictures):
        for other in pictures[k + 1 :]:
            assert np.abs(one.astype(int) - other).mean() > 4


def test_pairs_do_not_overlap():
    for scene in scenes(400):
        if scene.layout == "pair":
            both = (coverage(scene, 0) > 0.5) & (coverage(scene, 1) > 0.5)
            assert both.sum() < 25
