"""InST against the official sampler's recorded run, its parts in closed form, and its mistakes."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import diffedit_jax as de
from diffedit_jax import solvers
from diffedit_jax.core import Cond, Prediction, Schedule, noised, row, sample_batch
from diffedit_jax.methods.generate import guidance_edit
from diffedit_jax.methods.inst import (
    official_level,
    shares,
    statistics,
    stochastic_inversion,
    tinted,
)
from diffedit_jax.methods.inversion import Scheduled
from diffedit_jax.methods.sdedit import partial_table
from tests.golden_models import GOLDEN, nhwc, style_file

PIXEL = GOLDEN.parent / "pixel"


class Toy(struct.PyTreeNode):
    """eps = tanh(A1 x + A2 c + A3 t / 1000) + 0.5 x t / 1000 (manifest)."""

    a1: Any
    a2: Any
    a3: Any

    def __call__(self, x, step, cond, control=None):
        share = step.t / 1000
        told = (cond.text[..., 0, :] @ self.a2.T)[..., None, None, :]
        eps = jnp.tanh(x @ self.a1.T + told + self.a3 * share) + 0.5 * x * share
        return Prediction.of("epsilon", eps, x, step.alpha, step.sigma)


@pytest.fixture(scope="module")
def case():
    return dict(np.load(PIXEL / "inst_stochastic_inversion.npz"))


@pytest.fixture(scope="module")
def setting(case):
    """(toy network, table, condition, z0, noise) of the recorded run."""
    denoiser = Toy(*(jnp.asarray(case[f"in.A{k}"]) for k in (1, 2, 3)))
    model = Scheduled(Schedule())
    table = partial_table(model, solvers.DDIM(), 50, 0.7, None, 2)
    both = np.stack([case["in.uncond"], case["in.cond"]], axis=1)[:, :, None]
    return (
        denoiser,
        table,
        Cond(text=jnp.asarray(both)),
        nhwc(case["in.z0"]),
        nhwc(case["in.noise"]),
    )


def assert_close(found, wanted):
    wanted = nhwc(wanted)
    assert np.linalg.norm(found - wanted) <= 1e-4 * np.linalg.norm(wanted)


def test_stochastic_inversion_and_the_way_back_are_the_official_ones(case, setting, highest):
    denoiser, table, cond, z0, noise = setting
    level = official_level(Scheduled(Schedule()), 0.7, 2, "official")
    np.testing.assert_array_equal(level[:, 0], 700)
    x = stochastic_inversion(denoiser, table, z0, noise, cond, level)
    assert_close(np.asarray(x), case["out.z_enc"])
    for scale, name in ((10.0, "out.decoded"), (1.0, "out.decoded_scale1")):
        edit = guidance_edit(scale, 0.0, 2)
        found = sample_batch(denoiser, solvers.DDIM(), edit, table, x, cond).x
        assert_close(np.asarray(found), case[name])


def test_the_sane_level_is_that_of_the_official_grid(case, setting):
    """out.encode_on_ddim_grid noises to rows of the grid itself, as ours does by default."""
    _, table, _, z0, noise = setting
    walked = np.flatnonzero(table.active)
    np.testing.assert_array_equal(table.t[walked], case["out.ddim_timesteps"][:35][::-1])
    rows = [row(table, 49 - k) for k in case["in.ddim_index"]]
    found = np.stack([noised(r, z0[i], noise[i]) for i, r in enumerate(rows)])
    assert_close(found, case["out.encode_on_ddim_grid"])


def test_the_sane_inversion_asks_at_the_level_where_sampling_begins(setting):
    denoiser, table, cond, z0, noise = setting
    found = stochastic_inversion(denoiser, table, z0, noise, cond)
    step = row(table, 15)  # the first of the 35 that are walked
    asked = Cond(text=cond.text[:, 1])
    answer = denoiser(noised(step, z0, noise), step, asked).eps
    np.testing.assert_allclose(found, noised(step, z0, answer), atol=1e-6)


def test_a_network_that_finds_the_noise_gives_back_the_noised_picture(setting):
    """eps' = eps where the answer is right, so stochastic inversion changes nothing."""

    class Right(struct.PyTreeNode):
        z0: Any

        def __call__(self, x, step, cond, control=None):
            eps = (x - step.alpha * self.z0) / step.sigma
            return Prediction.of("epsilon", eps, x, step.alpha, step.sigma)

    _, table, cond, z0, noise = setting
    one = slice(0, 1)
    found = stochastic_inversion(Right(z0[0]), table, z0[one], noise[one], Cond(cond.text[one]))
    np.testing.assert_allclose(found[0], noised(row(table, 15), z0[0], noise[0]), atol=1e-5)


@pytest.mark.parametrize("strength, t", [(0.7, 700), (0.29, 290), (0.058, 58), (1.0, 999)])
def test_official_levels_are_truncated(strength, t):
    """int(0.29 * 1000) is 290 and int(0.058 * 1000) 58 in float64; 1000 is beyond the table."""
    schedule = Schedule()
    found = official_level(Scheduled(schedule), strength, 1, "official")[0]
    assert found[0] == min(int(strength * 1000), 999) == t
    np.testing.assert_allclose(found[1:] ** 2, [schedule.abar[t], 1 - schedule.abar[t]], atol=1e-6)


def test_adain_is_the_official_one():
    case = dict(np.load(PIXEL / "inst_adain.npz"))
    content, style = nhwc(case["in.content"]), nhwc(case["in.style"])
    mean, deviation = statistics(jnp.asarray(content))
    for own, name in ((mean, "mean"), (deviation, "std")):
        np.testing.assert_allclose(own, case[f"out.content_{name}"][..., 0, 0], atol=1e-5)
    found = tinted(content, *statistics(jnp.asarray(style)), jnp.ones(2))
    np.testing.assert_allclose(found, nhwc(case["out"]), atol=1e-5)


def test_adain_moves_by_a_share_towards_the_statistics():
    rng = np.random.default_rng(0)
    z0 = jnp.asarray(rng.normal(size=(2, 8, 8, 4)), jnp.float32)
    mean, deviation = jnp.full((2, 4), 3.0), jnp.full((2, 4), 0.5)
    whole, half, none = (tinted(z0, mean, deviation, jnp.full(2, s)) for s in (1.0, 0.5, 0.0))
    np.testing.assert_allclose(statistics(whole)[0], mean, atol=1e-5)
    np.testing.assert_allclose(statistics(whole)[1], deviation, atol=1e-3)
    np.testing.assert_array_equal(none, z0)
    np.testing.assert_allclose(half, (whole + z0) / 2, atol=1e-6)


@pytest.mark.parametrize("adain", [-0.1, 1.1, float("nan")])
def test_impossible_shares_are_refused(adain):
    with pytest.raises(de.UserError, match="adain must be from 0 to 1"):
        shares(adain, 1)


@pytest.fixture(scope="module")
def style(tmp_path_factory):
    return style_file(tmp_path_factory.mktemp("style") / "style.safetensors")


def run(model, picture, style, **given):
    return de.edit(model, picture, "inst", style=style, steps=4, size=32, guidance=3.0, **given)


def test_styles_of_one_batch_are_their_own(tiny, picture, style, tmp_path):
    other = style_file(tmp_path / "other.safetensors", seed=1)
    given = dict(adain=[0.0, 1.0], strength=[0.5, 0.75])
    batch = run(tiny, [picture, picture], [style, other], **given).image
    assert np.abs(batch[0].astype(int) - batch[1]).max() > 2
    for k, one in enumerate((style, other)):
        alone = run(tiny, picture, one, index=k, **{name: x[k] for name, x in given.items()}).image
        assert np.abs(alone.astype(int) - batch[k]).max() <= 1


def test_the_official_level_is_another(tiny, picture, style):
    found = [run(tiny, picture, style, compat=c, strength=0.5).image for c in ("", "official")]
    assert np.abs(found[0].astype(int) - found[1]).max() > 0


def test_the_word_must_stand_in_the_prompt(tiny, picture, style):
    with pytest.raises(de.UserError, match=r"lacks '\*', the style's word; .* 'a cat \*'"):
        run(tiny, picture, style, prompt="a cat")
    run(tiny, picture, style, prompt="a cat in the style of *", negative="a dog")


def test_mistakes_name_what_to_change(tiny, picture, tmp_path):
    wide = style_file(tmp_path / "wide.safetensors", width=24)
    with pytest.raises(de.UserError, match="24 channels, the text encoder 16; .* another base"):
        run(tiny, picture, wide)
    bare = style_file(tmp_path / "bare.safetensors", kept={}, tower="")
    with pytest.raises(de.UserError, match="does not hold the painting; name it with --example"):
        run(tiny, picture, bare)
    with pytest.raises(de.UserError, match="does not say which CLIP read the painting"):
        run(tiny, picture, bare, example=picture)
    with pytest.raises(de.UserError, match="tower gives 128 channels, the style .* with 16"):
        run(tiny, picture, bare, example=picture, tower="emoji")
    with pytest.raises(de.UserError, match="nowhere does not exist"):
        run(tiny, picture, bare, example=picture, tower=str(tmp_path / "nowhere"))
    with pytest.raises(de.UserError, match="compat must be 'official' or nothing"):
        run(tiny, picture, wide, compat="theirs")
    with pytest.raises(de.UserError, match="inst needs style"):
        de.edit(tiny, picture, "inst")
