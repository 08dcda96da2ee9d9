"""Trains a tiny text-to-image model on every mesh that is named, in one process or several.

python -m tests.training.devices_script FOLDER MESH...   prints {mesh: {losses, state}} as JSON.
"""

import csv
import functools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from diffedit_jax.core.time import Schedule
from diffedit_jax.models import CLIPText, UNet
from diffedit_jax.training import objectives, ranks, sharding
from diffedit_jax.training.conditions import text_condition
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.digests import of_tree
from diffedit_jax.training.loop import fit
from diffedit_jax.training.selections import Everything
from diffedit_jax.training.settings import complete
from diffedit_jax.training.task import Task

UNET = UNet(
    sample_size=8, block_out_channels=(16,), norm_num_groups=4, layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D",), attention_head_dim=4,
    up_block_types=("CrossAttnUpBlock2D",), cross_attention_dim=16,
)  # fmt: skip
TEXT = CLIPText(
    vocab_size=64, hidden_size=16, intermediate_size=64, num_hidden_layers=1,
    num_attention_heads=4, max_position_embeddings=6, eos_token_id=63,
)  # fmt: skip


@functools.cache
def task():
    keys = jax.random.split(jax.random.PRNGKey(0))
    x, ids = jnp.zeros((1, 8, 8, 4)), jnp.zeros((1, 6), jnp.int32)
    unet = jax.jit(UNET.init)(keys[0], x, jnp.zeros(1), jnp.zeros((1, 6, 16)))["params"]
    params = {"unet": unet, "text_encoder": jax.jit(TEXT.init)(keys[1], ids)["params"]}
    objective = objectives.denoising(UNET, kind="epsilon", schedule=Schedule())
    condition = text_condition(TEXT, drop=0.1, empty=jnp.zeros(6, jnp.int32))
    params = jax.device_get(params)
    return Task("devices", params, objective, Everything(), condition, sharding.NETWORK_RULES)


def batch(step):
    rng = np.random.default_rng(step)
    latent = rng.normal(size=(8, 8, 8, 4)).astype(np.float32)
    return {"latent": latent, "ids": rng.integers(0, 63, (8, 6)).astype(np.int32)}


def run(folder, mesh):
    config = complete(dict(steps=20, batch=8, rate=1e-3, average=0.99, accumulate=1,
                           log_every=1, save_every=20))  # fmt: skip
    data = Stepped(batch, sharding.share(mesh))
    state = fit(task(), data, config, folder, mesh=mesh, quiet=True)
    if jax.process_index() == 0:
        rows = list(csv.DictReader((folder / "log.csv").open()))
    else:
        rows = []
    return {
        "losses": [float(row["loss"]) for row in rows],
        "state": of_tree((state.trained, state.average, state.optimiser)),
        "axes": axes(state.trained),
        "largest": max(shard_share(x) for x in jax.tree.leaves(state.trained) if x.size > 2000),
    }


def axes(tree):
    """{path: the mesh's axes that an array is spread over, by dimension}."""
    flat = flatten_dict(tree, sep="/")
    return {path: list(x.sharding.spec) for path, x in flat.items()}


def shard_share(x):
    """The part of an array that lies on one device."""
    return x.addressable_shards[0].data.size / x.size


def mesh_of(text):
    """The mesh of all devices, or of the first with "one"; what follows "#" tells runs apart."""
    one = text == "one"
    devices = jax.devices()[:1] if one else None
    return sharding.make_mesh("data=1" if one else text.split("#")[0], devices)


if __name__ == "__main__":
    ranks.join()
    place = pathlib.Path(sys.argv[1])
    found = {text: run(place / str(k), mesh_of(text)) for k, text in enumerate(sys.argv[2:])}
    if jax.process_index() == 0:
        print(json.dumps(found))
