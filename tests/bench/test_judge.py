"""The judge that ships: right on clean renders, robust to what an autoencoder does to them."""

from importlib.resources import files

import numpy as np
import pytest

from diffedit_jax.bench import judge
from diffedit_jax.scenes import Scene, place, render_batch, sample_scene, world

EVERY_OBJECT = (*world.OBJECTS, *world.HELD_OUT_OBJECTS)


@pytest.fixture(scope="module")
def params():
    return judge.load_judge(str(files("diffedit_jax") / "assets/emoji/judge/judge.safetensors"))


def draw(seed, count, **choices):
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, held_out=None, **choices) for _ in range(count)]


def test_clean_renders_are_read_right(params):
    scenes = draw(123, 256)
    right = judge.right(params, render_batch(scenes), scenes)
    for name, values in right.items():
        assert values.mean() >= 0.98, name


def test_held_out_objects_are_known_to_the_judge(params):
    scenes = draw(124, 128, objects=tuple(world.HELD_OUT_OBJECTS), layout="centre")
    assert judge.right(params, render_batch(scenes), scenes)["object"].mean() >= 0.95


def test_a_wrong_scene_is_not_called_right(params):
    scenes = draw(125, 64, layout="centre")
    swapped = [
        Scene((place("tree", None, "centre"),), "white") if s.things[0].name != "tree"
        else Scene((place("cat", None, "centre"),), "white")
        for s in scenes
    ]  # fmt: skip
    assert judge.right(params, render_batch(scenes), swapped)["object"].mean() < 0.05


def test_answers_follow_the_slots():
    pair = (place("cat", None, "left"), place("heart", "red", "right"))
    found = judge.answers(Scene(pair, "blue", "dotted"))
    assert (found["object"], found["object_2"]) == ("cat", "heart")
    assert (found["colour"], found["colour_2"]) == ("nothing", "red")
    right = judge.answers(Scene((place("dog", None, "right"),), "blue"))
    assert (right["object"], right["object_2"]) == ("nothing", "dog")
    labels = judge.labels([Scene(pair, "blue")])
    assert judge.HEADS["object_2"][labels["object_2"][0]] == "heart"


def test_weights_come_back_in_half_precision(params, tmp_path):
    judge.save_judge(params, tmp_path / "judge.safetensors")
    again = judge.load_judge(tmp_path / "judge.safetensors")
    pictures = render_batch(draw(1, 8))
    one, other = judge.read(params, pictures), judge.read(again, pictures)
    assert all((one[name] == other[name]).all() for name in judge.HEADS)
