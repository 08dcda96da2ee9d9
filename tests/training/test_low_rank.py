"""What a LoRA changes, in which dtype, and what its config can say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.training.frozen import place_frozen
from diffedit_jax.training.launch import load_config
from diffedit_jax.training.selections import LowRank, NewRows
from diffedit_jax.training.sharding import make_mesh
from diffedit_jax.training.step import lower
from diffedit_jax.training.task import Task
from diffedit_jax.training.tasks import dreambooth
from tests.training import golden

CONFIG = golden.GOLDEN.parents[2] / "configs" / "dreambooth_lora.py"


def layers(size=64):
    keys = jax.random.split(jax.random.key(0), 3)
    normal = lambda k, *shape: 0.1 * jax.random.normal(keys[k], shape)  # noqa: E731
    return {"unet": {"attentions_0": {"proj": {"kernel": normal(0, size, size)}},
                     "resnets_0": {"conv1": {"kernel": normal(1, 3, 3, size, size)},
                                   "time": {"kernel": normal(2, size, size)}}}}  # fmt: skip


def test_a_small_change_is_not_lost_in_bfloat16():
    """The mean change of 4096 weights of 0.1; a weight's step in bfloat16 is 5e-4."""
    chosen, params = LowRank(rank=1, targets="transformers"), layers()
    up = jnp.full((1, 64), 1e-4)
    trained = {"unet": {"attentions_0": {"proj": {"down": jnp.ones((64, 1)), "up": up}}}}
    task = Task("toy", params, None, chosen)
    kept = place_frozen(task, trained, make_mesh(), "bfloat16")["unet"]
    assert kept["attentions_0"]["proj"]["kernel"].dtype == jnp.float32
    assert kept["resnets_0"]["conv1"]["kernel"].dtype == jnp.bfloat16
    joined = lower(chosen.join({"unet": kept}, trained), "bfloat16")["unet"]
    found, before = (x["attentions_0"]["proj"]["kernel"] for x in (joined, params["unet"]))
    assert found.dtype == jnp.bfloat16
    assert float((found.astype(jnp.float32) - before).mean()) == pytest.approx(1e-4, rel=0.1)


def test_only_what_is_computed_with_stays_wide():
    """A table that new rows go into, and nothing beside it."""
    rows = {"embeddings": {"token_embedding": {"embedding": jnp.ones((5, 4))}}}
    params = {"text_encoder": {**rows, "mlp": {"kernel": jnp.ones((4, 4))}}}
    task = Task("toy", params, None, NewRows((4,), (0,)))
    kept = place_frozen(task, jnp.ones((1, 4)), make_mesh(), "bfloat16")["text_encoder"]
    assert kept["mlp"]["kernel"].dtype == jnp.bfloat16
    assert kept["embeddings"]["token_embedding"]["embedding"].dtype == jnp.float32


def test_larger_kernels_have_their_own_rank_and_alpha_or_are_left_alone():
    config = load_config(CONFIG, ["targets=unet/.*", "rank=4", "alpha=2", "convolution_alpha=6"])
    params, alone = layers(8), dreambooth.lora(config)
    found = alone.modules(alone.init(params, jax.random.key(0)))
    assert set(found) == {"unet/attentions_0/proj", "unet/resnets_0/time"}
    assert {alpha for _, _, alpha in found.values()} == {2.0}
    config.convolutions = 3
    both = dreambooth.lora(config)
    found = both.modules(both.init(params, jax.random.key(0)))
    down, up, alpha = found["unet/resnets_0/conv1"]
    assert (down.shape, up.shape, alpha) == ((3, 3, 8, 3), (3, 8), 6.0)
    assert found["unet/resnets_0/time"][2] == 2.0
    with pytest.raises(UserError, match="no layer"):
        LowRank(targets="unet/.*/conv1").init(params, jax.random.key(0))
    np.testing.assert_array_equal(both.join(params, both.init(params, jax.random.key(0)))["unet"]
                                  ["resnets_0"]["conv1"]["kernel"],
                                  params["unet"]["resnets_0"]["conv1"]["kernel"])  # fmt: skip
