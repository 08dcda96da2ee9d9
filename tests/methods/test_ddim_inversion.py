"""DDIM inversion against the official codes' trajectories, and its own laws."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.core import Schedule, chain, grid, levels, table
from diffedit_jax.methods.generate import guidance_edit
from diffedit_jax.methods.inversion import (
    descend,
    editing_table,
    invert,
    path,
    upward,
)
from diffedit_jax.methods.run import guided
from tests.golden_models import GOLDEN, golden_bundle, nhwc

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
