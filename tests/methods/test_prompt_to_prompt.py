"""Prompt-to-Prompt against the official code's runs, and its laws."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax import solvers
from diffedit_jax.core import Cond, Schedule, chain
from diffedit_jax.methods.controls import counted_calls
from diffedit_jax.methods.generate import guidance_edit
from diffedit_jax.methods.inversion import path
from diffedit_jax.methods.run import walk
from diffedit_jax.transforms import AttentionEdit, LocalBlend
from tests.golden_models import GOLDEN, golden_bundle, nhwc

TOKENS, STEPS = 77, 5
RUNS = {  # name: (self window, blend threshold, blend start, self cells)
    "empty": ((0, 0), -1.0, 0, 256),
    "replace": ((0, 2), -1.0, 0, 256),
    "replace_blend": ((0, 2), 0.75, 0, 256),
    "refine": ((0, 2), -1.0, 0, 256),
    "reweight_replace": ((0, 2), -1.0, 0, 256),
    "replace_pndm": ((0, 2), -1.0, 0, 256),
    "identity": ((0, 2), -1.0, 0, 256),
}


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "01_p2p" / "full_run.npz"))


@pytest.fixture(scope="module")
def model(case):
    return golden_bundle("unet_sd1", {"": case["empty_uncond"]}, schedule=Schedule())


def rules(case, run, **more):
    """The official controller's arrays as ours; without a table nothing is edited."""
    table = case.get(f"{run}_alpha_table", np.zeros((STEPS + 1, 1, 1, 1, TOKENS)))[:, 0, 0, 0]
    begin = np.argmax(table, axis=0)
    cross = np.stack([begin, begin + table.sum(axis=0).astype(int)], axis=-1)
    mapper, fresh = case.get(f"{run}_mapper", np.eye(TOKENS)[None])[0], np.zeros(TOKENS)
    if f"{run}_alphas" in case:
        share = case[f"{run}_alphas"].reshape(TOKENS)
        mapper, fresh = np.eye(TOKENS)[mapper].T * share, 1 - share
    scale = case.get(f"{run}_equalizer", np.ones((1, TOKENS)))[0]
    window, threshold, start, cells = RUNS[run]
    words = case.get(f"{run}_blend_layers", np.zeros((2, TOKENS)))
    edit = AttentionEdit(
        *(jnp.asarray(a, jnp.float32)[None, None] for a in (mapper, fresh, scale)),
        cross=jnp.asarray(cross)[None, None],
        self_window=jnp.asarray(window)[None, None],
        self_cells=cells,
        **more,
    )
    blend = LocalBlend(
        select=jnp.asarray(np.stack([words, 0 * words], axis=1), jnp.float32)[None],
        threshold=jnp.asarray([[threshold, 0.3]]),
        start=jnp.asarray([start]),
        grid=(16, 16),
    )
    return edit, blend


@pytest.mark.parametrize("run", RUNS)
def test_runs_are_the_official_ones(run, case, model, highest):
    rule = solvers.named("plms" if run == "replace_pndm" else "ddim")
    table = rule.steps(model.schedule, STEPS).replace(active=None)
    more = {}
    if run == "replace_pndm":
        more["calls"] = {k: v[None] for k, v in counted_calls(rule, table).items()}
    null = np.broadcast_to(case[f"{run}_uncond"], case[f"{run}_cond"].shape)
    cond = Cond(text=jnp.asarray(np.stack([null, case[f"{run}_cond"]]))[None])
    x = jnp.asarray(nhwc(case["latent"]))
    x = jnp.broadcast_to(x[:, None], (1, 2, *x.shape[1:]))
    edit = chain(guidance_edit(7.5, 0.0, 1), *rules(case, run, **more))
    result = walk(model.denoiser, rule, edit, table, x, cond, record=path)
    official = nhwc(case[f"{run}_traj"])
    if run == "replace_pndm":  # two questions of the first step are one row
        official = official[1:]
    ours = np.asarray(result.recorded)[0]
    if run == "replace_blend":  # a cell at the threshold may flip
        assert (np.abs(ours - official) > 2e-4).mean() < 0.005
    else:
        np.testing.assert_allclose(ours, official, atol=2e-4, rtol=0)
    if run == "identity":
        np.testing.assert_array_equal(ours[:, 0], ours[:, 1])
    print(run, np.abs(ours - official).max())
