"""DDIM inversion against the official codes' trajectories, and its own laws."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax.core import Cond, Schedule, chain, grid, levels, table
from diffedit_jax.methods import ddim_inversion
from diffedit_jax.methods.generate import guidance_edit
from diffedit_jax.methods.inversion import (
    answers,
    descend,
    editing_table,
    invert,
    mirrored,
    passed,
    path,
    reports,
    upward,
)
from diffedit_jax.methods.run import guided
from diffedit_jax.notices import listening
from tests.gaussian import Gaussian
from tests.golden_models import GOLDEN, golden_bundle, nhwc
from tests.methods.toy import as_uint8, toy, two_pictures

# run: steps, prediction, spacing, guidance, set_alpha_to_one (manifest, 03)
RUNS = {
    "T0": (10, "epsilon", "leading", None, False),
    "T1": (10, "v_prediction", "leading", None, False),
    "T2": (5, "epsilon", "leading", 3.0, False),
    "T3": (8, "epsilon", "trailing", None, True),
    "T4": (7, "epsilon", "leading", None, False),
    "T5": (5, "v_prediction", "trailing", 2.0, False),
}


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "03_ddim_inversion" / "ddim_inversion.npz"))


@pytest.fixture(scope="module")
def bundle(case):
    told = {"": case["uncond"], "one": case["cond"][0], "two": case["cond"][1]}
    return golden_bundle("unet_sd1", told)


def speaking(model, kind):
    return model.replace(denoiser=model.denoiser.replace(kind=kind))


@pytest.mark.parametrize("run", RUNS)
def test_the_target_convention_is_that_of_diffusers(run, case, bundle, highest):
    steps, kind, spacing, guidance, one = RUNS[run]
    model = speaking(bundle, kind).replace(schedule=Schedule(set_alpha_to_one=one))
    z0, prompts = jnp.asarray(nhwc(case["x0"])), ["one", "two"]
    rows = editing_table(model, steps=steps, count=2, spacing=spacing)
    np.testing.assert_array_equal(upward(rows).t, case[f"{run}_inv_timesteps"])
    np.testing.assert_array_equal(rows.t, case[f"{run}_fwd_timesteps"])
    cond, edit = model.condition(prompts), None
    if guidance:
        cond, edit = guided(model, prompts, ["", ""]), guidance_edit(guidance, 0.0, 2)
    up = invert(model, z0, cond, table=rows, edit=edit)
    down = descend(model, edit or chain(), rows, up.x, cond, record=path)
    for recorded, name, allowed in ((up, "inv", 2e-4), (down, "back", 1e-3)):
        theirs = np.moveaxis(nhwc(case[f"{run}_{name}"]), 0, 1)
        np.testing.assert_allclose(recorded.recorded, theirs, atol=allowed, rtol=0)
        print(run, name, np.abs(recorded.recorded - theirs).max())


@pytest.mark.parametrize(
    ("run", "steps", "kind"), [("S0", 10, "epsilon"), ("S1", 5, "v_prediction")]
)
def test_the_source_convention_is_that_of_guided_diffusion(run, steps, kind, case, bundle, highest):
    """Its way up ends at abar = 0 and its way back at 1, one level further than it began."""
    model, z0 = speaking(bundle, kind), jnp.asarray(nhwc(case["x0"]))
    cond = model.condition(["one", "two"])
    t = grid(1000, steps, "leading")
    alpha, sigma = levels(np.append(0, model.schedule.abar[t.astype(int)]))
    up = invert(model, z0, cond, table=table(np.append(1000, t), alpha, sigma), label="source")
    theirs = np.moveaxis(nhwc(case[f"{run}_inv"]), 0, 1)
    print(run, np.abs(up.recorded - theirs).max())
    np.testing.assert_allclose(up.recorded, theirs, atol=2e-4, rtol=0)
    alpha, sigma = levels(np.append(model.schedule.abar[t[1:].astype(int)], 1))
    back = table(np.append(t[1:], 0), alpha, sigma)
    down = descend(model, chain(), back, up.recorded[:, -2], cond, record=path)
    theirs = np.moveaxis(nhwc(case[f"{run}_back"]), 0, 1)
    print(run, np.abs(down.recorded - theirs).max())
    np.testing.assert_allclose(down.recorded, theirs, atol=1e-3, rtol=0)


class Bundle:
    def __init__(self, denoiser, schedule=None):
        self.denoiser, self.schedule = denoiser, schedule or Schedule()


class Smooth(Gaussian):
    kind = "epsilon"


def round_trip(steps, refine=0, **more):
    model = Bundle(Smooth(mean=jnp.float32(0.3), spread=jnp.float32(0.5)))
    z0 = jax.random.normal(jax.random.key(0), (2, 4, 4, 2))
    rows = editing_table(model, steps=steps, count=2, **more)
    up = invert(model, z0, Cond(), table=rows, refine=refine)
    down = descend(model, chain(), rows, up.x, Cond(), record=path)
    return z0, up, down


def error(z0, up, down):
    return float(jnp.abs(down.x - z0).max())


def test_more_steps_come_back_closer():
    """A first-order method: a quarter of the step leaves about a quarter of the error."""
    errors = [error(*round_trip(steps)) for steps in (25, 100, 400)]
    assert errors[0] > 2.5 * errors[1] > 6 * errors[2]


def test_refinement_converges_to_the_exact_inverse():
    errors = [error(*round_trip(20, refine)) for refine in (0, 1, 3, 20)]
    assert errors[0] > 4 * errors[1] > 16 * errors[2] and errors[3] < 5e-6


def test_the_path_is_where_the_way_back_passes():
    """With the exact inverse both ways visit the same latents, also where strengths differ."""
    z0, up, down = round_trip(20, 20, strength=[0.5, 0.8])
    pivots = passed(up.recorded, z0)
    for one, begin in ((0, 10), (1, 4)):
        np.testing.assert_allclose(pivots[one, begin:], down.recorded[one, begin:], atol=1e-5)
        assert not np.any(down.recorded[one, :begin])


def test_answers_belong_to_their_segments():
    model = Bundle(Smooth(mean=jnp.float32(0.3), spread=jnp.float32(0.5)))
    z0 = jax.random.normal(jax.random.key(0), (1, 4, 4, 2))
    rows = editing_table(model, steps=5, count=1)
    up = invert(model, z0, Cond(), table=rows, record=answers)
    used, x = mirrored(up.recorded), up.x
    for i in range(5):  # each segment walked back with the noise that it was walked up with
        clean = (x - rows.sigma[i] * used[:, i]) / rows.alpha[i]
        x = rows.alpha_next[i] * clean + rows.sigma_next[i] * used[:, i]
    np.testing.assert_allclose(x, z0, atol=1e-5)


def test_the_clean_level_is_chosen():
    model = Bundle(Smooth(), Schedule())
    ends = {c: editing_table(model, steps=4, count=1, clean=c).sigma_next[-1] for c in
            ("one", "first", None)}  # fmt: skip
    assert ends["one"] == 0 and ends["first"] == ends[None] > 0
    with pytest.raises(de.UserError, match="clean must"):
        editing_table(model, steps=4, count=1, clean="none")
    model.denoiser = types.SimpleNamespace(kind="sample")
    rows = editing_table(model, steps=4, count=1, clean="one")
    with pytest.raises(de.UserError, match="clean='first'"):
        invert(model, jnp.zeros((1, 2, 2, 1)), Cond(), table=rows)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_reconstruction_is_reported(kind):
    images = two_pictures()
    with listening() as heard:
        image = ddim_inversion(toy(kind), images, source=["0.2", "0.1"], guidance=1.0, steps=50,
                               refine=10, report=True)  # fmt: skip
        assert np.abs(image - as_uint8(images)).max() <= 1
        assert len(heard) == 2 and "picture 2: reconstruction: latent error" in heard[1]
        ddim_inversion(toy(kind), images, source=["0.2", "0.1"], prompt=["0.5", "0"], steps=5,
                       inversion_guidance=3.0)  # fmt: skip
    assert "inversion_guidance" in heard[-1]
    plain = dict(source=["0.2", "0.1"], steps=5, report=True)
    told = []
    half = np.zeros((2, *images.shape[1:3]), np.float32)
    half[:, :, : half.shape[2] // 2] = 1
    for more in ({"guidance": 1.0}, {"guidance": 7.5}, {"prompt": ["0.5", "0"]}, {"mask": half}):
        with listening() as heard:
            ddim_inversion(toy(kind), images, **{**plain, "guidance": 1.0, **more})
        told.append([line for line in heard if "reconstruction" in line])
    assert told[0] == told[1] == told[2] == told[3]  # of the picture, whatever the edit is
    report = reports(toy(), images, images, images + 0.01)[0]
    assert report.latent == pytest.approx(0.01, rel=1e-3) and report.floor > 100
