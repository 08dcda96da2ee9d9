"""Token ids and timesteps that look up what is not there end a run before the step, by name."""

import dataclasses

import jax
import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.training import loop
from diffedit_jax.training.checkpoint import Checkpoints
from diffedit_jax.training.tasks import dreambooth, instruct_pix2pix, textual_inversion
from tests.training import golden
from tests.training.test_personal_tasks import config_of

from . import small

LIMITS = {"ids": small.WORDS, "t": 1000}


def task():
    return dataclasses.replace(small.toy_task(), limits=LIMITS)


def with_times(step):
    return {**small.unet_batch(step), "t": np.arange(8) * 142}


def spoilt(name, place, value, at=3):
    """The batches, one number of batch `at` being another."""

    def make(step):
        found = with_times(step)
        if step == at:
            found[name] = found[name].copy()
            found[name][place] = value
        return found

    return make


@pytest.mark.parametrize(
    ("name", "place", "value", "said"),
    [
        ("ids", (2, 1), 12, r"batch 3: ids\[2, 1\] is 12, outside 0 to 11, the text encoder's"),
        ("ids", (7, 0), -1, r"batch 3: ids\[7, 0\] is -1, outside"),
        ("t", (5,), 1000, r"batch 3: t\[5\] is 1000, outside 0 to 999, the schedule's"),
        ("t", (0,), -1, r"batch 3: t\[0\] is -1, outside"),
    ],
)
def test_a_number_outside_its_table_is_named_and_the_run_can_go_on(
    tmp_path, name, place, value, said
):
    """Without the check JAX takes the nearest row (or counts from the end) and goes on."""
    bad = small.data(spoilt(name, place, value))
    with pytest.raises(UserError, match=said) as told:
        loop.fit(task(), bad, small.settings(steps=5), tmp_path / "a", quiet=True)
    assert "\n" not in str(told.value)
    with Checkpoints(tmp_path / "a" / "checkpoints") as saved:
        assert saved.steps()[-1] == 3  # three good batches
    parts, whole = (
        loop.fit(task(), small.data(with_times), small.settings(steps=5), tmp_path / k, quiet=True)
        for k in ("a", "b")
    )
    jax.tree.map(np.testing.assert_array_equal, parts.trained, whole.trained)


def test_the_first_and_the_last_row_are_inside(tmp_path):
    make = spoilt("ids", (0, slice(None, 2)), (0, small.WORDS - 1), at=0)
    state = loop.fit(task(), small.data(make), small.settings(steps=1), tmp_path, quiet=True)
    assert int(state.updates) == 1


def test_every_task_of_a_model_knows_its_tables():
    """A learned word's rows belong to the table, what lies behind them does not."""
    model = golden.tiny()
    words = len(model.texts[0].params["embeddings"]["token_embedding"]["embedding"])
    wide = instruct_pix2pix.widened(model)
    longer, rows = textual_inversion.with_word(model, "<toy>", 2)
    inversion = config_of("textual_inversion", initial="cat", vectors=2)
    made = {
        words: [
            dreambooth.full_task(model, config_of("dreambooth")),
            dreambooth.lora_task(model, config_of("dreambooth_lora")),
            instruct_pix2pix.instruct_task(wide, config_of("train_instruct_pix2pix")),
        ],
        words + 2: [textual_inversion.inversion_task(longer, inversion, rows)],
    }
    for count, tasks in made.items():
        assert [t.limits for t in tasks] == [{"ids": count, "t": 1000}] * len(tasks)
