"""InstructPix2Pix' way of drawing two prompts: what is shared, where, how long, and what is not."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax import solvers
from diffedit_jax.core import Site
from diffedit_jax.methods.generate import generate
from diffedit_jax.methods.run import Draws
from diffedit_jax.training import pair_maker
from diffedit_jax.training.launch import load_config
from diffedit_jax.training.pair_drawing import SharedSelfAttention, draw_pairs, steps_shared
from tests.training import golden


@pytest.mark.parametrize("steps", [2, 5, 25, 100])
def test_the_window_is_the_sources(steps):
    """while p > i / (S - 1), for step i of S."""
    shares = [0.1, 0.25, 0.5, 0.75, 0.9, *np.random.default_rng(0).uniform(0.1, 0.9, 50)]
    for share, found in zip(shares, steps_shared(shares, steps), strict=True):
        assert found == sum(share > i / (steps - 1) for i in range(steps))


def asked(control, probs, kind="self", cells=64):
    site = Site("a", kind, "down", 0, cells, cells, 2)
    return control(probs, site)[0] if control.wants(site) else probs


@pytest.mark.parametrize("index, within", [(0, True), (2, True), (3, False)])
def test_every_self_attention_of_both_branches_is_shared_and_no_cross_attention(index, within):
    seen = {}

    def inner(x, step, cond, control):
        seen["control"] = control

    table = solvers.named("euler_ancestral").steps(golden.tiny().schedule, 5)
    step = table.replace(index=jnp.int32(index))
    SharedSelfAttention(until=jnp.int32(3)).denoise(inner, None)(None, step, None)
    probs = np.random.default_rng(0).random((2, 2, 2, 3, 3)).astype(np.float32)  # [u; c] x rows
    wanted = probs.copy()
    if within:
        wanted[:, 1] = probs[:, 0]
    for cells in (8, 64):
        np.testing.assert_array_equal(asked(seen["control"], probs, cells=cells), wanted)
    np.testing.assert_array_equal(asked(seen["control"], probs, "cross"), probs)


@pytest.fixture(scope="module")
def model():
    return golden.tiny()


def test_a_pair_shares_its_noise_and_its_first_picture_is_nobody_elses(model):
    ways = dict(seeds=[3, 4], guidance=[3.0, 5.0], share=[0.6, 0.6], steps=3)
    same = draw_pairs(model, "a cat", "a cat", **ways)
    assert np.abs(same[:, 0].astype(int) - same[:, 1]).max() <= 1
    pair = draw_pairs(model, "a cat", "a red dog", **ways)
    assert np.abs(pair[:, 0].astype(int) - same[:, 0]).max() <= 1
    assert (pair[:, 1] != same[:, 1]).any()
    draws, shape = Draws(2, np.asarray([3, 4])), model.latent_shape(model.size, model.size)
    noise = {"start": draws("start", shape), "steps": draws("steps", (3, *shape))}
    alone = generate(model, None, prompt=["a cat"] * 2, guidance=[3.0, 5.0], steps=3,
                     solver="euler_ancestral", noise=noise, eta=1.0)  # fmt: skip
    assert np.abs(pair[:, 0].astype(int) - alone).max() <= 1


@pytest.mark.parametrize("size, counts", [(512, [1, 1, 1]), (64, [3])])
def test_large_pictures_are_drawn_one_pair_at_a_time(monkeypatch, size, counts):
    """Attention of 64 x 64 cells is 0.5 GB per row and branch, with Stable Diffusion's 8 heads."""
    seen = []

    def drawn(model, caption, output, *, seeds, **_):
        seen.append(len(seeds))
        return np.zeros((len(seeds), 2, 8, 8, 3), np.uint8)

    monkeypatch.setattr(pair_maker, "draw_pairs", drawn)
    config = load_config(golden.GOLDEN.parents[2] / "configs" / "make_pairs.py", ["samples=3"])
    prompt = {"caption": "a cat", "output": "a dog"}
    found = list(pair_maker._drawn(SimpleNamespace(size=size), prompt, 0, config))
    assert seen == counts and len({one["seed"] for one in found}) == 3
