"""Small training runs that stand for large ones.

A UNet; a toy with the names of one, which compiles in no time; a layer whose state can be heavy.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffedit_jax.core import Cond
from diffedit_jax.core.time import Schedule
from diffedit_jax.models.unet import UNet
from diffedit_jax.training import objectives, selections
from diffedit_jax.training.data import WHOLE, Stepped
from diffedit_jax.training.settings import complete
from diffedit_jax.training.task import Task

WORDS, WIDTH = 12, 8
SELECTIONS = {
    "everything": selections.Everything(),
    "rows": selections.NewRows((10, 11), (3,)),
    "lora": selections.LowRank(2, convolutions=1),
    "paths": selections.Paths("unet/.*attentions.*"),
}


def network():
    return UNet(
        sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=2,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=WIDTH,
    )  # fmt: skip


def words(params, batch, key):
    """A table of words is the whole text encoder."""
    table = params["text_encoder"]["embeddings"]["token_embedding"]["embedding"]
    return Cond(text=table[batch["ids"]])


def unet_task(selection="everything"):
    unet = network()
    keys = jax.random.split(jax.random.PRNGKey(5))
    x, text = jnp.zeros((1, 8, 8, 4)), jnp.zeros((1, 3, WIDTH))
    table = jax.random.normal(keys[1], (WORDS, WIDTH))
    params = {
        "unet": jax.jit(unet.init)(keys[0], x, jnp.zeros(1), text)["params"],
        "text_encoder": {"embeddings": {"token_embedding": {"embedding": table}}},
    }
    objective = objectives.denoising(
        unet, kind="epsilon", schedule=Schedule(), min_snr=5.0, offset=0.1
    )
    return Task("small", params, objective, SELECTIONS[selection], words)


def unet_batch(step, count=8):
    """Subjects and class pictures, as for prior preservation."""
    draw = np.random.default_rng((1, step))
    return {
        "latent": draw.normal(size=(count, 8, 8, 4)).astype(np.float32),
        "ids": draw.integers(0, WORDS, (count, 3)),
        "prior": np.arange(count) >= count // 2,
        "weight": objectives.prior_weights(count // 2, count - count // 2, 1.0),
    }


def toy_task(selection="everything"):
    """One convolution and one product with the text, under names that every selection knows."""
    draw = np.random.default_rng(8)
    shapes = ((3, 3, 4, 4), (WIDTH, WIDTH), (WORDS, WIDTH))
    kernel, query, table = (draw.normal(size=s).astype(np.float32) / 4 for s in shapes)
    params = {
        "unet": {
            "resnets_0": {"conv1": {"kernel": kernel}},
            "attentions_0": {"to_q": {"kernel": query}},
        },
        "text_encoder": {"embeddings": {"token_embedding": {"embedding": table}}},
    }

    def objective(params, cond, batch, key, step):
        unet, x0 = params["unet"], batch["latent"]
        noise = jax.random.normal(key, x0.shape)
        x = jax.lax.conv_general_dilated(
            x0 + noise, unet["resnets_0"]["conv1"]["kernel"], (1, 1), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        text = jnp.tanh(cond.text @ unet["attentions_0"]["to_q"]["kernel"]).mean(1)
        found = x + text[:, None, None, :4]
        return jnp.square(found - noise).mean((1, 2, 3)), {}

    return Task("toy", params, objective, SELECTIONS[selection], words)


def layer_task(width=64):
    """|tanh(x W) - x|^2: the state takes 16 width^2 bytes, average included."""
    params = {"layer": jax.random.normal(jax.random.PRNGKey(6), (width, width)) / width**0.5}

    def objective(params, cond, batch, key, step):
        x = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
        return jnp.square(jnp.tanh(x @ params["layer"]) - x).mean(-1), {}

    return Task("layer", params, objective, selections.Everything())


def layer_batch(step, width=64, count=8):
    return {"x": np.random.default_rng((2, step)).normal(size=(count, width)).astype(np.float32)}


def settings(**changes):
    plain = dict(steps=8, rate=1e-2, save_every=1, log_every=1, average=0.99, keep_last=2)
    return complete({**plain, **changes})


def setup(told):
    """(task, data by step) of a driver's order: {"network", "width"}."""
    made = {"unet": unet_task, "toy": toy_task}.get(told.get("network"))
    if made:
        return made(), unet_batch
    width = told.get("width", 64)
    return layer_task(width), lambda step: layer_batch(step, width)


def data(make, share=WHOLE):
    return Stepped(make, share)
