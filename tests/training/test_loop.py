"""Running and resuming: a resumed run is bit-equal to an uninterrupted one."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.errors import NotFiniteError
from diffedit_jax.training import loop, weights

from . import tiny


def run(folder, steps, **changes):
    options = {k: changes.pop(k) for k in ("watch", "quiet") if k in changes}
    settings = tiny.config(steps=steps, **changes)
    options = {"quiet": True, **options}
    return loop.fit(tiny.task(), tiny.data(), settings, folder, **options)


def same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (np.asarray(a) == np.asarray(b)).all()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(tmp_path, accumulate):
    settings = dict(accumulate=accumulate, save_every=100)
    whole = run(tmp_path / "whole", 12, **settings)
    run(tmp_path / "parts", 5, **settings)
    run(tmp_path / "parts", 8, **settings)
    parts = run(tmp_path / "parts", 12, **settings)
    same(whole, parts)
    assert int(parts.step) == 12 * accumulate and int(parts.updates) == 12


def test_a_finished_run_is_not_trained_again(tmp_path):
    done, again = run(tmp_path, 6), run(tmp_path, 6)
    same(done, again)


def test_the_table_holds_one_line_per_report(tmp_path):
    run(tmp_path, 6)
    run(tmp_path, 8)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8]
    told = ("loss", "rate", "step_time", "images_per_second", "largest")  # the last: objective's
    assert all(float(row[name]) > 0 for row in rows for name in told)
    assert {row["mfu"] for row in rows} == {""}  # nobody knows what this processor could do


def test_watchers_see_every_save(tmp_path):
    seen = []
    run(tmp_path, 9, watch=lambda k, now: seen.append((k, int(now.step))))
    assert seen == [(3, 3), (6, 6), (9, 9)]


def test_batches_that_are_not_finite_end_the_run_after_a_few(tmp_path):
    def broken(params, cond, batch, key, step):
        loss, facts = tiny.objective(params, cond, batch, key, step)
        return jnp.where(step >= 4, jnp.nan, loss), facts

    with pytest.raises(NotFiniteError, match="3 batches in a row, the last at step 7"):
        loop.fit(tiny.task(broken), tiny.data(), tiny.config(patience=3), tmp_path, quiet=True)
    good = run(tmp_path / "good", 3)
    same(good.trained, run(tmp_path, 3).trained)  # the checkpoint of step 3 is still there


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
