"""The training step: it learns, its average lags, and its batches depend on the step alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffedit_jax.training import data, state


def loss(params, batch, key, step):
    """A linear fit with a little noise, so that keys matter."""
    noise = 0.01 * jax.random.normal(key, batch["y"].shape)
    found = batch["x"] @ params["w"] + params["b"]
    return jnp.square(found - batch["y"] - noise).mean(), {"step": step}


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 3)).astype(np.float32)
    return {"x": x, "y": x @ np.float32([1, -2, 3]) + 1}


def start(optimiser):
    return state.create_state({"w": jnp.zeros(3), "b": jnp.zeros(())}, optimiser, seed=0)


def test_a_step_lowers_the_loss_on_a_fixed_batch(batch):
    optimiser = state.adamw(0.1, 200, warmup=5)
    now, step, losses = start(optimiser), state.make_step(loss, optimiser), []
    for _ in range(200):
        now, metrics = step(now, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.01 * losses[0]
    assert int(now.step) == 200
    np.testing.assert_allclose(now.params["w"], [1, -2, 3], atol=0.05)


def test_the_average_is_the_mean_of_the_parameters_weighted_by_age():
    """With a constant rate the average of constant parameters is those parameters."""
    params = {"w": jnp.float32(2.0)}
    average = {"w": jnp.float32(0.0)}
    for step in range(400):
        average = state.move_average(average, params, 0.9, step)
    assert abs(float(average["w"]) - 2) < 1e-5
    first = state.move_average({"w": jnp.float32(0.0)}, params, 0.999, 0)
    assert float(first["w"]) == pytest.approx(2 * 0.9)  # young averages forget their start


@pytest.mark.parametrize("settle", [1.0, 0.4])
def test_the_rate_rises_holds_and_falls(settle):
    steps, warmup, rate = 100, 10, 0.5
    optimiser = optax.chain(state.adamw(rate, steps, warmup=warmup, settle=settle, decay=0.0))
    now = optimiser.init(jnp.float32(0.0))
    sizes = []
    for _ in range(steps):
        update, now = optimiser.update(jnp.float32(1.0), now, jnp.float32(0.0))
        sizes.append(abs(float(update)))  # of a constant gradient, Adam's update is the rate
    assert sizes[0] == 0 and sizes[5] == pytest.approx(rate / 2, rel=1e-3)
    assert sizes[12] == pytest.approx(rate, rel=2e-2)
    hold = sizes[warmup : int(steps * (1 - settle))]
    assert all(size == pytest.approx(rate, rel=1e-3) for size in hold)
    assert sizes[-1] < 0.05 * rate


def test_batches_depend_on_seed_and_step_alone():
    make = data.crops(seed=1, batch=3, size=32)
    one, other = make(7), data.crops(seed=1, batch=3, size=32)(7)
    assert one.shape == (3, 32, 32, 3) and np.abs(one).max() <= 1
    assert (one == other).all()
    assert (one != make(8)).any() and (one != data.crops(2, 3, 32)(7)).any()


def test_training_data_never_holds_what_is_held_out():
    for step in range(20):
        assert not any(scene.held_out for scene in data.scenes_of(3, step, 64))
