"""Captions: the sentences, and the way back."""

import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.scenes import Scene, Thing, caption, parse, place, sample_caption, sample_scene
from diffedit_jax.scenes.captions import article, words


def scenes(count, seed=0):
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, held_out=None) for _ in range(count)]


def what_it_says(scene):
    things = tuple((t.name, t.colour, t.place) for t in scene.things)
    return things, scene.background, scene.pattern, scene.style


def test_the_sentences():
    cat, apple = place("cat", None, "centre"), place("apple", "red", "centre")
    assert caption(Scene((cat,), "blue")) == "a cat on a blue background"
    assert (
        caption(Scene((cat,), "green", "striped", "pixel art"))
        == "a pixel art of a cat on a striped green background"
    )
    assert caption(Scene((apple,), "white"), 3) == "a red apple , white background"
    pair = (place("cat", None, "left"), place("heart", "red", "right"))
    assert caption(Scene(pair, "blue")) == "a cat and a red heart on a blue background"
    assert (
        caption(Scene((place("dog", None, "left"),), "pink"))
        == "a dog on the left on a pink background"
    )
    assert article("apple") == "an apple"


def test_parse_gives_the_scene_back():
    for scene in scenes(500):
        for paraphrase in range(4):
            text = caption(scene, paraphrase)
            assert what_it_says(parse(text)) == what_it_says(scene), text
            assert caption(parse(text), paraphrase) == text


def test_the_canonical_caption_dominates():
    rng, scene = np.random.default_rng(0), Scene((Thing("cat"),), "blue")
    drawn = [sample_caption(rng, scene) for _ in range(1000)]
    assert 0.65 < np.mean([text == caption(scene) for text in drawn]) < 0.75
    assert len(set(drawn)) == 4


def test_every_word_is_in_the_vocabulary():
    known = set(words())
    for scene in scenes(500, seed=1):
        for paraphrase in range(4):
            assert set(caption(scene, paraphrase).split()) <= known


@pytest.mark.parametrize("text", ["", "hello", "a cat on a beige background", "a cat"])
def test_other_sentences_are_refused(text):
    with pytest.raises(UserError):
        parse(text)
