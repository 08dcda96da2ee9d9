"""A run that was cut off anywhere is, at its end, bit-equal to one that was not."""

import shutil

import jax
import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.training import digests, loop
from diffedit_jax.training.checkpoint import Checkpoints

from . import small

CASES = {
    "average and prior": ("everything", dict(steps=6, schedule="cosine", warmup=2)),
    "mid-cycle": ("paths", dict(steps=3, accumulate=3, averaging="litema")),
    "embedding rows": ("rows", dict(steps=5, average=0.0, schedule="linear", warmup=1)),
    "lora": ("lora", dict(steps=5, accumulate=2, clip=0.5)),
}


def fit(folder, selection, settings, **changes):
    settings = {**settings, "keep_last": 99, **changes}
    network = settings.pop("network", small.toy_task)
    config = small.settings(**settings)
    data = small.data(small.unet_batch)
    state = loop.fit(network(selection), data, config, folder, quiet=True)
    return state, data.state()


def seen(state, cursor):
    """What must be equal: every part by its own digest, and where the data stands."""
    parts = {name: digests.of_tree(getattr(state, name)) for name in state.__dataclass_fields__}
    return {**parts, "data": cursor}


def cut(source, target, step):
    """The checkpoints as they were when `step` was the newest."""
    for place in source.glob("checkpoints/[0-9]*"):
        if int(place.name) <= step:
            shutil.copytree(place, target / "checkpoints" / place.name)


NETWORKS = [small.toy_task, pytest.param(small.unet_task, marks=pytest.mark.heavy)]


@pytest.mark.parametrize("network", NETWORKS, ids=["toy", "unet"])
@pytest.mark.parametrize("case", CASES)
def test_resuming_at_every_step_gives_the_same_bits(tmp_path, case, network):
    selection, settings = CASES[case]
    settings = {**settings, "network": network}
    whole = seen(*fit(tmp_path / "whole", selection, settings))
    total = settings["steps"] * settings.get("accumulate", 1)
    assert seen(*fit(tmp_path / "again", selection, settings, save_every=99)) == whole
    for step in range(1, total):
        folder = tmp_path / f"from{step}"
        cut(tmp_path / "whole", folder, step)
        assert seen(*fit(folder, selection, settings, save_every=99)) == whole, step


def test_a_saved_state_is_the_state_of_its_step_and_not_of_a_later_one(tmp_path):
    """The step donates its buffers: what is written in the background must be a copy."""
    kept = {}
    config = small.settings(steps=6, keep_last=99)
    task = small.layer_task(256)

    def watch(step, state):
        kept[step] = jax.tree.map(lambda x: np.array(x, copy=True), state)

    loop.fit(task, small.data(lambda k: small.layer_batch(k, 256)), config, tmp_path,
             watch=watch, quiet=True)  # fmt: skip
    for step, state in kept.items():
        folder = tmp_path / f"only{step}"
        cut(tmp_path, folder, step)
        with Checkpoints(folder / "checkpoints") as runs:
            found, at, _ = runs.restore(state)
        assert at == step and digests.of_tree(found) == digests.of_tree(state)


def test_a_run_of_other_settings_or_another_model_is_refused_by_name(tmp_path):
    fit(tmp_path, "lora", dict(steps=1))
    with pytest.raises(UserError, match=r"rate is 0\.01 there and 0\.02 here"):
        fit(tmp_path, "lora", dict(steps=2), rate=0.02)
    with pytest.raises(UserError, match="frozen is "):
        fit_other_base(tmp_path)
    with pytest.raises(UserError, match="does not fit this run"):
        fit(tmp_path, "rows", dict(steps=2))
    assert fit(tmp_path, "lora", dict(steps=2))[0].updates == 2  # nothing was lost


def fit_other_base(folder):
    task = small.toy_task("lora")
    table = task.params["text_encoder"]["embeddings"]["token_embedding"]
    table["embedding"][0, 0] += 1e-3
    loop.fit(task, small.data(small.unet_batch), small.settings(steps=2), folder, quiet=True)
