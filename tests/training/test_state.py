"""The training step: it learns, it skips what is not finite, and batches make one sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.training import data
from diffedit_jax.training.optimisers import make_optimiser
from diffedit_jax.training.state import create_state
from diffedit_jax.training.step import make_step
from diffedit_jax.training.task import Task

from . import tiny


def quiet(params, cond, batch, key, step):
    """The tiny objective without its noise: nothing depends on the key of a step."""
    return tiny.objective(params, cond, {**batch, "noise": jnp.zeros_like(batch["x"])}, key, step)


def linear(params, cond, batch, key, step):
    found = batch["x"] @ params["w"] + params["b"]
    return jnp.square(found - batch["y"] - 0.01 * jax.random.normal(key, batch["y"].shape)), {}


def run(task, batches, **changes):
    config = tiny.config(**changes)
    optimiser = make_optimiser(config)
    step, now = make_step(task, optimiser, config), create_state(task, optimiser, config)
    for batch in batches:
        now, metrics = step(now, task.params, batch)
    return now, metrics


def same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_lower_the_loss_on_a_fixed_batch():
    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    batch = {"x": x, "y": x @ np.float32([1, -2, 3]) + 1}
    task = Task("linear", {"w": jnp.zeros(3), "b": jnp.zeros(())}, linear, tiny.All())
    now, metrics = run(task, [batch] * 200, rate=0.1, steps=200, schedule="cosine")
    assert float(metrics["loss"]) < 0.01
    assert int(now.step) == int(now.updates) == 200
    np.testing.assert_allclose(now.trained["w"], [1, -2, 3], atol=0.05)


def spoilt(batch):
    bad = {name: x.copy() for name, x in batch.items()}
    bad["x"][3, 1] = np.nan
    return bad


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_batch_that_is_not_finite_leaves_no_trace(accumulate):
    good = [tiny.batch(k) for k in range(7)]
    settings = dict(accumulate=accumulate, schedule="cosine")
    plain, _ = run(tiny.task(quiet), good, **settings)
    bad, metrics = run(tiny.task(quiet), [*good[:4], spoilt(good[1]), *good[4:]], **settings)
    assert int(bad.skipped) == 1 and int(metrics["streak"]) == 0 and int(bad.step) == 8
    kept = ("updates", "trained", "average", "optimiser", "accumulated", "held")
    for name in kept:
        same(getattr(plain, name), getattr(bad, name))


def test_batches_in_a_row_that_are_not_finite_are_counted():
    good = tiny.batch(0)
    _, metrics = run(tiny.task(), [good, spoilt(good), spoilt(good)])
    assert int(metrics["streak"]) == int(metrics["skipped"]) == 2


def test_two_accumulated_halves_are_one_batch():
    whole = tiny.batch(0)
    halves = [{"x": whole["x"][:4]}, {"x": whole["x"][4:]}]
    one, _ = run(tiny.task(quiet), [whole])
    two, _ = run(tiny.task(quiet), halves, accumulate=2)
    assert int(two.updates) == int(one.updates) == 1 and int(two.held) == 0
    for a, b in zip(jax.tree.leaves(one.trained), jax.tree.leaves(two.trained), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_half_cycle_has_moved_nothing():
    half, _ = run(tiny.task(quiet), [tiny.batch(0)], accumulate=2)
    same(half.trained, tiny.parameters())
    assert int(half.held) == 1 and int(half.updates) == 0


def test_an_example_of_weight_zero_does_not_count():
    batch = tiny.batch(0)
    other = {"x": batch["x"].copy()}
    other["x"][5:] = 7.0
    weight = np.float32([1] * 5 + [0] * 3)
    one, _ = run(tiny.task(quiet), [{**batch, "weight": weight}])
    two, _ = run(tiny.task(quiet), [{**other, "weight": weight}])
    same(one.trained, two.trained)


def test_callers_keep_their_parameters():
    params = tiny.parameters()
    run(tiny.task(params=params), [tiny.batch(0), tiny.batch(1)])
    same(params, tiny.parameters())


def test_rematerialised_steps_are_the_same_steps():
    batches = [tiny.batch(k) for k in range(3)]
    one, _ = run(tiny.task(), batches)
    two, _ = run(tiny.task(), batches, remat=True)
    for a, b in zip(jax.tree.leaves(one.trained), jax.tree.leaves(two.trained), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_products_in_bfloat16_keep_the_state_in_float32():
    seen = []

    def watching(params, cond, batch, key, step):
        seen.append({name: x.dtype for name, x in params.items()})
        return quiet(params, cond, batch, key, step)

    now, metrics = run(tiny.task(watching), [tiny.batch(0)], compute="bfloat16")
    assert seen[0] == {"first": jnp.bfloat16, "second": jnp.float32}  # kernels, not vectors
    assert {x.dtype for x in jax.tree.leaves((now.trained, now.average))} == {jnp.dtype("float32")}
    _, full = run(tiny.task(quiet), [tiny.batch(0)])
    assert float(metrics["loss"]) == pytest.approx(float(full["loss"]), rel=2e-2)


def test_batches_depend_on_seed_and_step_alone():
    make = data.crops(seed=1, batch=3, size=32)
    one, other = make(7)["image"], data.crops(seed=1, batch=3, size=32)(7)["image"]
    assert one.shape == (3, 32, 32, 3) and np.abs(one).max() <= 1
    assert (one == other).all()
    assert (one != make(8)["image"]).any() and (one != data.crops(2, 3, 32)(7)["image"]).any()


def test_training_data_never_holds_what_is_held_out():
    for step in range(20):
        assert not any(scene.held_out for scene in data.scenes_of(3, step, 64))
