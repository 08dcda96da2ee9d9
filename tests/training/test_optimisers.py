"""Optimisers, rates and averages against recorded runs of torch, diffusers and CompVis."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.training.average import decay_at, move_average
from diffedit_jax.training.optimisers import make_optimiser, rates
from diffedit_jax.training.settings import complete

FILE = pathlib.Path(__file__).parents[1] / "golden" / "latent" / "15_optim" / "optim.npz"
OPTIMISERS = {
    "adamw_default": dict(optimiser="adamw", rate=0.01),
    "adamw_script": dict(optimiser="adamw", rate=0.005, decay=0.01),
    "adamw_arldm": dict(optimiser="adamw", rate=0.001, decay=0.0001),
    "adamw_wd0": dict(optimiser="adamw", rate=0.02, decay=0.0, betas=(0.8, 0.95)),
    "adam": dict(optimiser="adam", rate=0.01),
}
AVERAGES = {
    "default": dict(average=0.9999),
    "warmup": dict(average=0.9999, average_power=2 / 3),
    "warmup_min": dict(average=0.995, average_power=0.75, average_least=0.1),
    "after_step": dict(average=0.9, average_after=4),
}
SCHEDULES = {
    "constant": {},
    "constant_with_warmup": dict(warmup=8),
    "linear": dict(warmup=8),
    "cosine": dict(warmup=8),
    "cosine_with_restarts": dict(warmup=8, cycles=2),
    "polynomial": dict(warmup=8, power=1.0),
}


@pytest.fixture(scope="module")
def recorded():
    with np.load(FILE) as file:
        return dict(file)


@pytest.mark.parametrize("clip", ["", "_clip"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_are_torchs(recorded, name, clip):
    optimiser = make_optimiser(complete({**OPTIMISERS[name], "clip": float(bool(clip))}))
    params = [jnp.asarray(recorded[f"opt_p0_{j}"]) for j in (0, 1)]
    update, state = jax.jit(optimiser.update), optimiser.init(params)
    for k in range(12):
        grads = [jnp.asarray(recorded[f"opt_grads_{j}"][k]) for j in (0, 1)]
        changes, state = update(grads, state, params)
        params = optax.apply_updates(params, changes)
        for j in (0, 1):
            wanted = recorded[f"opt_{name}{clip}_{j}"][k]
            np.testing.assert_allclose(params[j], wanted, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_diffusers(recorded, name):
    rate = rates(complete(dict(rate=0.01, steps=40, schedule=name, **SCHEDULES[name])))
    wanted = recorded[f"lr_{name}"]
    found = [float(rate(jnp.int32(n))) for n in range(len(wanted))]
    np.testing.assert_allclose(found, wanted, atol=1e-8)


def averaged(recorded, config):
    shadow = [jnp.asarray(recorded[f"ema_params_{j}"][0]) for j in (0, 1)]
    for update in range(1, 21):
        params = [jnp.asarray(recorded[f"ema_params_{j}"][update]) for j in (0, 1)]
        decay = decay_at(jnp.int32(update), config)
        shadow = move_average(shadow, params, decay)
        yield float(decay), shadow


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_are_diffusers(recorded, name):
    for k, (decay, shadow) in enumerate(averaged(recorded, complete(AVERAGES[name]))):
        assert decay == pytest.approx(recorded[f"ema_{name}_decay"][k], abs=1e-6)
        for j in (0, 1):
            np.testing.assert_allclose(shadow[j], recorded[f"ema_{name}_shadow_{j}"][k], atol=1e-6)


def test_averages_are_litemas(recorded):
    config = complete(dict(average=0.9999, averaging="litema"))
    for k, (_, shadow) in enumerate(averaged(recorded, config)):
        for j in (0, 1):
            np.testing.assert_allclose(shadow[j], recorded[f"litema_shadow_{j}"][k], atol=1e-6)


@pytest.mark.parametrize("settle", [1.0, 0.4])
def test_the_rate_rises_holds_and_falls(settle):
    steps, warmup = 100, 10
    config = complete(dict(rate=0.5, steps=steps, warmup=warmup, settle=settle, schedule="settle"))
    sizes = [float(rates(config)(n)) for n in range(steps)]
    assert sizes[0] == 0 and sizes[5] == pytest.approx(0.25)
    assert sizes[12] == pytest.approx(0.5, rel=2e-2)
    hold = sizes[warmup : int(steps * (1 - settle))]
    assert all(size == pytest.approx(0.5) for size in hold)
    assert sizes[-1] < 0.05 * 0.5


@pytest.mark.parametrize("wrong", [dict(optimiser="sgd"), dict(schedule="saw")])
def test_unknown_names_are_refused_with_those_that_are_known(wrong):
    with pytest.raises(UserError, match=r"is not known; use (one of constant|adamw)"):
        make_optimiser(complete(wrong))


@pytest.mark.parametrize("steps, settle", [(1, 0.6), (3, 0.0), (2, 1.0)])
def test_settle_has_a_fall_of_one_step_at_least(steps, settle):
    config = complete(dict(schedule="settle", steps=steps, settle=settle, rate=1.0))
    rate = rates(config)
    assert float(rate(0)) == 1.0 and float(rate(steps)) == pytest.approx(0.02)
