"""Batches of encoded scenes: emphasis, and dependence on the step alone."""

import numpy as np
import pytest

from diffedit_jax.scenes import sample_scene
from diffedit_jax.training.latents import emphasised, latent_batches


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    return [sample_scene(rng) for _ in range(400)]


def test_emphasis_multiplies_style_and_layout(scenes):
    share = emphasised(scenes, {"pixel art": 3, "pair": 2})
    assert share.sum() == pytest.approx(1)
    plain = next(
        p for p, s in zip(share, scenes, strict=True) if (s.style, s.layout) == ("none", "centre")
    )
    for portion, scene in zip(share, scenes, strict=True):
        times = 3 if scene.style == "pixel art" else 2 if scene.layout == "pair" else 1
        assert portion == pytest.approx(times * plain)


def test_batches_depend_on_the_step_alone_and_follow_the_emphasis(scenes):
    pool = np.arange(400, dtype=np.float16)[:, None, None, None] * np.ones((1, 2, 2, 1), np.float16)

    def tokenize(captions):
        return np.asarray([[len(text)] for text in captions], np.int32)

    make = latent_batches(pool, scenes, tokenize, 64, seed=1, weights={"pair": 1e9})
    one, other = make(3), make(3)
    assert (one["latent"] == other["latent"]).all() and (one["ids"] == other["ids"]).all()
    assert (one["latent"] != make(4)["latent"]).any()
    assert all(scenes[int(row[0, 0, 0])].layout == "pair" for row in one["latent"])
