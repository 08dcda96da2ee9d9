"""NaN and infinity: the batch is skipped, nothing else changes, and a run of them ends the run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.errors import NotFiniteError, UserError
from diffedit_jax.training import digests, loop, spikes
from diffedit_jax.training.checkpoint import Checkpoints
from diffedit_jax.training.frozen import place_frozen
from diffedit_jax.training.optimisers import make_optimiser
from diffedit_jax.training.selections import Everything, NewRows
from diffedit_jax.training.sharding import make_mesh
from diffedit_jax.training.state import create_state
from diffedit_jax.training.step import make_step
from diffedit_jax.training.task import Task

from . import small
from .harness import ended

WIDTH = 16


def objective(params, cond, batch, key, step):
    """Where `root` is 0 the loss is finite and only the gradient of `scale` is not: 0 sqrt'(0)."""
    x = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
    error = jnp.square(jnp.tanh(x @ params["layer"]) - x).mean(-1)
    return error + jnp.sqrt(batch["root"] * params["scale"]), {}


def task():
    layer = jax.random.normal(jax.random.PRNGKey(0), (WIDTH, WIDTH)) / 4
    return Task("sick", {"layer": layer, "scale": jnp.ones(())}, objective, Everything())


def batch(step):
    return {**small.layer_batch(step, WIDTH), "root": np.ones(8, np.float32)}


def one_nan(found):
    found["x"][3, 5] = np.nan


def one_infinity(found):
    found["x"][0, 0] = -np.inf


def too_large(found):
    found["x"][:] = 3e38


def gradient_alone(found):
    found["root"][2] = 0


SICK = [one_nan, one_infinity, too_large, gradient_alone]


def started(**changes):
    config, mesh = small.settings(**changes), make_mesh("data=1")
    about = (task(), make_optimiser(config), config)
    state = create_state(*about, mesh)
    return state, place_frozen(about[0], state.trained, mesh, "float32"), make_step(*about)


def parts(state, *without):
    names = [name for name in state.__dataclass_fields__ if name not in without]
    return {name: digests.of_tree(getattr(state, name)) for name in names}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("harm", SICK, ids=lambda f: f.__name__)
def test_a_sick_batch_changes_nothing_but_the_counters(harm, accumulate):
    state, params, step = started(accumulate=accumulate)
    state, metrics = step(state, params, batch(0))
    assert np.isfinite(metrics["loss"])
    before = parts(state, "step", "skipped", "streak")
    sick = batch(1)
    harm(sick)
    state, metrics = step(state, params, sick)
    assert parts(state, "step", "skipped", "streak") == before
    assert (int(state.step), int(state.skipped), int(state.streak)) == (2, 1, 1)
    finite_loss = np.isfinite(metrics["loss"])
    assert finite_loss == (harm is gradient_alone)  # each fault is the fault it claims to be
    state, _ = step(state, params, batch(2))
    assert (int(state.skipped), int(state.streak)) == (1, 0)


def test_a_run_with_a_sick_batch_is_the_run_without_it():
    """Bit for bit: the other batches keep the numbers, and so the noise, that they had."""
    (with_it, params, step), (without, _, _) = started(), started()
    for k in range(5):
        sick = batch(k)
        if k == 2:
            one_nan(sick)
            without = without.replace(step=without.step + 1)
        else:
            without, _ = step(without, params, batch(k))
        with_it, _ = step(with_it, params, sick)
    assert parts(with_it, "skipped") == parts(without, "skipped")


def shouting(found):
    found["x"][:] *= 30


def test_a_spike_is_skipped_once_the_window_says_what_is_usual(monkeypatch):
    """Off, it counts; on, it changes nothing but what has been seen; a new level is accepted."""
    monkeypatch.setattr(spikes, "WINDOW", 8)
    (plain, params, step), (state, _, careful) = started(), started(spike=6.0)
    loud = batch(12)
    shouting(loud)
    for k in range(12):
        found = loud if k == 3 else batch(k)  # before the window is full nothing is a spike
        state, _ = careful(state, params, found)
        plain, _ = step(plain, params, found)
    assert parts(state, "recent") == parts(plain, "recent") and int(state.skipped) == 0
    before = parts(state, "step", "skipped", "recent")
    state, metrics = careful(state, params, loud)
    assert np.isfinite(metrics["loss"]) and metrics["streak"] == 0 and metrics["skipped"] == 1
    assert parts(state, "step", "skipped", "recent") == before
    plain, _ = step(plain, params, loud)
    assert int(plain.skipped) == 0 and parts(plain)["trained"] != before["trained"]
    for _ in range(8):
        state, metrics = careful(state, params, loud)
    assert metrics["skipped"] < 8


def test_a_run_with_spikes_goes_on_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(spikes, "WINDOW", 4)

    def make(step):
        found = batch(step)
        if step in (6, 9):
            shouting(found)
        return found

    def run(folder, steps):
        config = small.settings(steps=steps, save_every=1, spike=3.0)
        return loop.fit(task(), small.data(make), config, folder, quiet=True)

    whole = run(tmp_path / "whole", 12)
    assert int(whole.skipped) >= 1
    for cut in (5, 7):
        run(tmp_path / str(cut), cut)
        assert digests.of_tree(run(tmp_path / str(cut), 12)) == digests.of_tree(whole)


def sick_after(first):
    def make(step):
        found = batch(step)
        if step >= first:
            one_nan(found)
        return found

    return make


@pytest.mark.parametrize("every", [1, 4])
def test_after_a_few_in_a_row_the_run_ends_and_its_checkpoints_are_good(tmp_path, every):
    config = small.settings(steps=30, save_every=every, patience=3)
    with pytest.raises(NotFiniteError, match="3 batches in a row"):
        loop.fit(task(), small.data(sick_after(9)), config, tmp_path, quiet=True)
    healthy = tmp_path / "healthy"
    loop.fit(task(), small.data(batch), small.settings(steps=9), healthy, quiet=True)
    state = create_state(task(), make_optimiser(config), config, make_mesh("data=1"))
    with Checkpoints(tmp_path / "checkpoints") as runs:
        found, step, _ = runs.restore(state)
    assert step == 9 // every * every and int(found.skipped) == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found.trained))
    if every == 1:
        with Checkpoints(healthy / "checkpoints") as runs:
            assert digests.of_tree(runs.restore(state)[0]) == digests.of_tree(found)


def test_the_exit_code_of_such_a_run_is_not_zero_and_it_can_go_on_with_good_data(launch):
    run = launch(network="layer", settings=dict(steps=12, patience=2, save_every=4), bad=[6, 7, 8])
    text = ended(run.start(), 2)
    assert "2 batches in a row" in text and "Traceback" not in text and run.steps() == [4]
    ended(run.start(bad=[]))
    result = run.result()
    assert result["step"] == 12 and result["skipped"] == 0


def test_rows_that_the_table_does_not_have_are_refused():
    """jax would drop them without a word, and nothing would be trained."""
    params = small.toy_task().params
    for rows in (NewRows((small.WORDS,)), NewRows((1,), words=(small.WORDS,)), NewRows((-1,))):
        with pytest.raises(UserError, match=f"one of the {small.WORDS} rows"):
            rows.init(params, jax.random.PRNGKey(0))
