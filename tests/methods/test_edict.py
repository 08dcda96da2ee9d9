"""EDICT against the authors' runs in float64, and the exactness that is its point."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax.core import Cond, Prediction, Schedule, grid, skipped, table
from diffedit_jax.methods import edict
from diffedit_jax.methods.edict import coupled_run, default_mix
from diffedit_jax.methods.generate import guidance_edit
from diffedit_jax.methods.run import walk
from diffedit_jax.notices import listening
from diffedit_jax.solvers.edict import EDICT, coupled, turned
from tests.golden_models import GOLDEN, nhwc
from tests.methods.toy import as_uint8, toy, two_pictures

# run: steps, strength, guidance, mix, leapfrog (manifest, 06)
RUNS = {
    "R0": (10, 0.8, 3.0, 0.93, True),
    "R1": (10, 0.7, 3.0, 0.93, True),
    "R2": (5, 1.0, 7.0, 0.95, True),
    "R3": (10, 0.5, 1.0, 0.93, False),
    "R4": (8, 1.0, 3.0, 1.0, True),
}


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "06_edict" / "edict.npz"))


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("diffusers")
    from tests.torch_unet import torch_unet

    return torch_unet()


def official_table(abar, steps, start=0):
    """T - T/N, ..., 0, then abar_0 once more."""
    t = grid(1000, steps, "leading").astype(int)
    after = np.append(abar[t[1:]], abar[0])
    alpha, sigma = np.sqrt(np.append(abar[t], abar[0])), np.sqrt(1 - np.append(abar[t], abar[0]))
    rows = table(np.append(t, 0), alpha, sigma, start=start, dtype=np.float64)
    return coupled(rows, abar[t], after, start)


@pytest.mark.parametrize("run", RUNS)
def test_both_ways_are_the_authors(run, case, reference):
    """Only the method can differ: the network and the tables are theirs, in float64."""
    steps, strength, guidance, mix, leapfrog = RUNS[run]
    rows = official_table(case["alphas_cumprod_f64"], steps, skipped(steps, strength))
    rule = EDICT(mix=np.float64(mix), leapfrog=leapfrog, asked="float64")
    edit = guidance_edit(guidance, 0.0, 1)
    x0 = nhwc(case["x0"])
    with jax.enable_x64(True):
        conds = {name: Cond(text=jnp.stack([case["emb_null"], case[f"emb_{name}"]], axis=1))
                 for name in ("base", "edit")}  # fmt: skip
        up = walk(reference, rule, edit, turned(rows), (x0, x0), conds["base"])
        ends = {"inv": up.x}
        for name, told in (("rec", "base"), ("edit", "edit")):
            ends[name] = walk(reference, rule, edit, rows, up.x, conds[told]).x
    for name, pair in ends.items():
        theirs = nhwc(case[f"{run}_{name}"])
        error = max(np.abs(np.asarray(z) - o).max() for z, o in zip(pair, theirs, strict=True))
        print(run, name, error)
        assert error < 1e-8 * np.abs(theirs).max()


def bent(dtype):
    """eps = tanh(x W (1 + sigma) + text): any network's shape of dependence, in one line."""
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)) / 2, dtype)

    def ask(x, step, cond, control=None):
        text = cond.text[..., None, None, :]
        eps = jnp.tanh(x.astype(dtype) @ weights * (1 + step.sigma).astype(dtype) + text)
        return Prediction.of("epsilon", eps.astype(x.dtype), x, step.alpha, step.sigma)

    return jax.tree_util.Partial(ask)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("steps", "start"), [(40, 0), (50, 15), (5, 0), (100, 0)])
def test_the_way_back_is_exact(dtype, steps, start):
    """For odd and even counts, over a float32 and a bfloat16 network, from one program."""
    ask, x0 = bent(dtype), np.random.default_rng(1).normal(size=(2, 4, 4, 4))
    rule = EDICT(mix=np.float64(default_mix(steps - start)))
    rows = rule.steps(Schedule(), steps, start=start)
    cond = Cond(text=jnp.asarray(np.random.default_rng(2).normal(size=(2, 2, 4)), dtype))
    edit = guidance_edit(3.0, 0.0, 2)
    up = walk(ask, rule, edit, turned(rows), (x0, x0), cond)
    down = walk(ask, rule, edit, rows, up.x, cond)
    assert max(np.abs(np.asarray(z) - x0).max() for z in down.x) < 1e-12
    other = walk(ask, rule, edit, rows, up.x, cond.replace(text=-cond.text))
    assert np.abs(np.asarray(other.x[0]) - x0).max() > 1e-2
    assert jnp.zeros(1).dtype == jnp.float32  # float64 stays inside the run


def test_a_mix_contracts_the_difference_by_p_squared():
    rule, (x, y) = EDICT(mix=0.9), np.random.default_rng(0).normal(size=(2, 3, 3, 1))
    one, two = rule.mixed(x, y)
    np.testing.assert_allclose(one - two, 0.9**2 * (x - y), atol=1e-12)
    np.testing.assert_allclose(rule.unmixed(one, two), (x, y), atol=1e-12)


def test_the_mix_belongs_to_the_number_of_steps():
    assert default_mix(40) == default_mix(50) == 0.93
    assert default_mix(100) ** 200 == pytest.approx(0.93**100)
    model = types.SimpleNamespace(schedule=Schedule())
    for mix, word in ((0.8, "drifts apart"), (0.99, "hardly couples")):
        with listening() as heard:
            coupled_run(model, steps=50, mix=mix)
        assert len(heard) == 1 and word in heard[0]
    for wrong, message in ((dict(mix=0.0), "mix must"), (dict(strength=[0.5, 0.8]), "one strength"),
                           (dict(compat="x"), "compat")):  # fmt: skip
        with pytest.raises(de.UserError, match=message):
            coupled_run(model, steps=50, **wrong)


def test_a_level_without_signal_is_refused():
    model = types.SimpleNamespace(schedule=Schedule(zero_terminal_snr=True, spacing="trailing"))
    with pytest.raises(de.UserError, match="without signal"):
        coupled_run(model, steps=10, strength=1.0)


def test_the_method_gives_the_picture_back_and_keeps_what_a_mask_keeps():
    model, images = toy(), two_pictures()
    given = dict(source=["0.8", "-0.6"], steps=10, posterior="mean")
    same = edict(model, images, **given)
    np.testing.assert_array_equal(same, as_uint8(images))
    mask = np.zeros(images.shape[:3], np.float32)
    mask[:, :3] = 1
    edited = edict(model, images, prompt=["-0.9", "0.9"], mask=mask, **given)
    np.testing.assert_array_equal(edited[:, 3:], as_uint8(images)[:, 3:])
    assert np.abs(edited[:, :3].astype(int) - as_uint8(images)[:, :3]).mean() > 2
