"""Running and resuming: a resumed run is bit-equal to an uninterrupted one."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.errors import NotFiniteError
from diffedit_jax.training import loop, state, weights


def loss(params, batch, key, step):
    noise = jax.random.normal(key, batch.shape)
    hidden = jnp.tanh((batch + 0.1 * noise) @ params["first"])
    return jnp.square(hidden @ params["second"] - batch.sum(-1)).mean(), {}


def batch(step):
    return np.random.default_rng(step).normal(size=(8, 4)).astype(np.float32)


def run(folder, steps, total=12, **options):
    keys = jax.random.split(jax.random.PRNGKey(1))
    params = {"first": jax.random.normal(keys[0], (4, 5)), "second": jnp.ones(5)}
    optimiser = state.adamw(1e-2, total, warmup=2)
    begun = state.create_state(params, optimiser, seed=2)
    options = {"save_every": 3, "log_every": 2, "quiet": True, **options}
    return loop.fit(
        begun, state.make_step(loss, optimiser), batch, steps=steps, folder=folder, **options
    )


def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(tmp_path):
    whole = run(tmp_path / "whole", 12)
    run(tmp_path / "parts", 5)
    run(tmp_path / "parts", 8)
    parts = run(tmp_path / "parts", 12)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert (np.asarray(one) == np.asarray(other)).all()
    assert int(parts.step) == 12


def test_a_finished_run_is_not_trained_again(tmp_path):
    done = run(tmp_path, 6)
    again = run(tmp_path, 6)
    assert (np.asarray(done.params["first"]) == np.asarray(again.params["first"])).all()


def test_the_log_holds_one_line_per_report(tmp_path):
    run(tmp_path, 6)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert all(row["loss"] > 0 and row["rate"] > 0 for row in rows)


def test_a_run_can_be_told_to_stop_by_the_clock(tmp_path):
    assert int(run(tmp_path, 12, seconds=0).step) == 0


def test_watchers_see_every_save(tmp_path):
    seen = []
    run(tmp_path, 9, watch=lambda k, now: seen.append((k, int(now.step))))
    assert seen == [(3, 3), (6, 6)]


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path):
    optimiser = state.adamw(1e-2, 4, warmup=1)
    begun = state.create_state({"w": jnp.ones(())}, optimiser, seed=0)
    step = state.make_step(lambda p, b, k, s: (p["w"] * jnp.nan, {}), optimiser)
    with pytest.raises(NotFiniteError, match="step 2"):
        loop.fit(begun, step, batch, steps=4, folder=tmp_path, log_every=2, quiet=True)


def test_weights_come_back_as_they_were(tmp_path):
    tree = {
        "a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "c": np.float32([7]),
        "d": np.float32(3),
    }
    weights.save(tree, tmp_path / "w.safetensors")
    back = weights.load(tmp_path / "w.safetensors")
    assert (back["a"]["b"] == tree["a"]["b"]).all() and (back["c"] == tree["c"]).all()
    assert back["d"].shape == () and back["d"] == 3
