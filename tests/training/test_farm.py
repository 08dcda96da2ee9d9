"""Many concepts at once are the runs that they would have been alone."""

import os
import signal
import sys

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from diffedit_jax.errors import UserError
from diffedit_jax.training import farm
from diffedit_jax.training.conditions import text_condition
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.optimisers import make_optimiser
from diffedit_jax.training.selections import LowRank, NewRows
from diffedit_jax.training.settings import complete
from diffedit_jax.training.state import create_state
from diffedit_jax.training.step import make_step
from diffedit_jax.training.task import Task
from diffedit_jax.training.tasks.shared import frozen, learned
from tests.chaos import small
from tests.chaos.harness import ended, running
from tests.training import farm_script, golden, tiny

pytestmark = pytest.mark.usefixtures("highest")


@pytest.fixture(scope="module")
def model():
    return golden.tiny()


def tasks_of(model, kind):
    """Three concepts: words from three words, or three LoRAs."""
    parts, objective = frozen(model), golden.objective(model)
    condition = text_condition(model.texts[0].module)
    selections = {
        "words": [NewRows((600, 601), (540 + i,)) for i in range(3)],
        "lora": [LowRank(2)] * 3,
    }
    return [Task("farm", parts, objective, one, condition) for one in selections[kind]]


def data_of(number, poison=None):
    """Batches of one concept; the one at step `poison` is not finite."""

    def make(step):
        rng = np.random.default_rng((number, step))
        latent = rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
        ids = rng.integers(0, 650, (2, 77)).astype(np.int32)
        ids[:, 3] = 600
        return {"latent": latent * (np.nan if step == poison else 1), "ids": ids}

    return Stepped(make)


def alone(task, data, config, number):
    config = complete({**config, "seed": config.seed + number})
    optimiser = make_optimiser(config)
    state, step = create_state(task, optimiser, config), make_step(task, optimiser, config)
    for _ in range(config.steps):
        state, _ = step(state, task.params, data.next())
    return state


@pytest.mark.parametrize("kind", ["words", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_farm_equals_separate_runs_and_one_bad_batch_harms_no_other(model, kind, tmp_path):
    tasks = tasks_of(model, kind)
    config = complete(dict(steps=3, rate=1e-2, average=0.9, save_every=2))
    data = [data_of(i, poison=1 if i == 2 else None) for i in range(3)]
    seen = []
    states = farm.train_farm(
        tasks, data, config, tmp_path, watch=lambda k, s, m: seen.append((k, m["loss"].shape))
    )
    assert seen == [(2, (3,)), (3, (3,))]
    for i in (0, 2):
        own = alone(tasks[i], data_of(i, poison=1 if i == 2 else None), config, i)
        found = farm.concept(states, i)
        assert int(found.skipped) == (1 if i == 2 else 0)
        for name in ("trained", "average"):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
                getattr(found, name), getattr(own, name),
            )  # fmt: skip


def test_a_farm_goes_on_bit_equal(model, tmp_path):
    tasks, config = tasks_of(model, "words"), complete(dict(steps=4, rate=1e-2, save_every=2))
    whole = farm.train_farm(tasks, [data_of(i) for i in range(3)], config, tmp_path / "one")
    config.steps = 2
    farm.train_farm(tasks, [data_of(i) for i in range(3)], config, tmp_path / "two")
    config.steps = 4
    again = farm.train_farm(tasks, [data_of(i) for i in range(3)], config, tmp_path / "two")
    jax.tree.map(np.testing.assert_array_equal, again, whole)


def small_farm(folder, steps=6, stops=None, **options):
    """Two concepts of a task that costs nothing; told to stop while it asks for batch `stops`."""

    def make(step):
        if step == stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return tiny.batch(step)

    config = tiny.config(steps=steps, save_every=100, batch=8)
    data = [Stepped(make), Stepped(lambda step: tiny.batch(step + 50))]
    tasks = [tiny.task()] * 2
    return farm.train_farm(tasks, data, config, folder, quiet=True, **options)


def test_a_farm_that_is_told_to_stop_saves_and_goes_on_bit_equal(tmp_path, capfd):
    whole = small_farm(tmp_path / "whole")
    seen = []
    stopped = small_farm(tmp_path / "parts", stops=3, watch=lambda k, s, m: seen.append(k))
    assert "SIGTERM: saving at the end of this step" in capfd.readouterr().err
    steps = [path.name for path in (tmp_path / "parts" / "checkpoints").glob("0*")]
    assert seen == [4] and steps == ["00000004"] and stopped.step.tolist() == [4, 4]
    jax.tree.map(np.testing.assert_array_equal, small_farm(tmp_path / "parts"), whole)


def test_a_farm_of_other_concepts_is_refused(tmp_path):
    small_farm(tmp_path, steps=2, about={"concept": {"a": {"word": "<a>"}}})
    with pytest.raises(UserError, match='concept.a.word is "<a>" there and "<b>" here'):
        small_farm(tmp_path, about={"concept": {"a": {"word": "<b>"}}})


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "devices"), [(1, 8), (2, 4)])
def test_a_farm_over_a_mesh_equals_separate_runs(tmp_path, processes, devices):
    with running(tmp_path, devices=devices) as run:
        run.folder.mkdir()
        command = [sys.executable, "-m", "tests.training.farm_script", str(run.folder)]
        many = processes > 1
        ranks = run.start_ranks(2, command=command) if many else [run.start(command=command)]
        for each in ranks:
            ended(each)
    found = np.load(run.folder / "learned.npz")
    config, task = farm_script.config(), small.toy_task("lora")
    for i in (0, 3, 7):
        own = flatten_dict(learned(alone(task, farm_script.data(i), config, i)), sep="/")
        assert sorted(found.files) == sorted(own)
        for name, wanted in own.items():
            np.testing.assert_allclose(found[name][i], wanted, atol=1e-5)


def test_concepts_must_divide_by_the_mesh(model, tmp_path):
    class Two:
        shape = {"data": 2, "fsdp": 1, "tensor": 1}

    with pytest.raises(UserError, match="3 concepts"):
        farm.train_farm(tasks_of(model, "words"), [], {}, tmp_path, mesh=Two())
