"""The tiny networks and recorded runs that training is compared with."""

import pathlib

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from diffedit_jax.bundles import load
from diffedit_jax.training import objectives
from diffedit_jax.training.optimisers import make_optimiser
from diffedit_jax.training.settings import complete
from diffedit_jax.training.sharding import make_mesh
from diffedit_jax.training.state import create_state
from diffedit_jax.training.step import make_step

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "latent"


def tiny():
    """The tiny Stable Diffusion of the recorded runs."""
    return load(GOLDEN / "12_pipelines" / "sd1")


def recorded(case, name):
    """The arrays of a file of a case."""
    with np.load(GOLDEN / case / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def weights(name):
    """The tensors of a file of the DreamBooth case."""
    return load_file(GOLDEN / "14_dreambooth_lora" / f"{name}.safetensors")


def nhwc(array):
    return np.moveaxis(array, -3, -1)


def batches(data, prefix="", ids=None):
    """What a recorded run saw, step by step: latents, noise, times and ids."""
    times = data["timesteps"] if "timesteps" in data else data[f"{prefix}t"]
    for k, t in enumerate(times):
        yield {
            "latent": nhwc(data[f"{prefix}latents"][k]),
            "noise": nhwc(data[f"{prefix}noise"][k]),
            "t": t.astype(np.int32),
            "ids": (data["input_ids"][k] if ids is None else ids).astype(np.int32),
        }


def train(task, batches, **config):
    """Run the trainer's own step over given batches: (states after each, metrics of each)."""
    config = complete(config)
    optimiser = make_optimiser(config)
    state = create_state(task, optimiser, config, make_mesh())
    step = make_step(task, optimiser, config)
    states, metrics = [jnp_copy(state.trained)], []
    for batch in batches:
        state, found = step(state, task.params, batch)
        states.append(jnp_copy(state.trained))
        metrics.append(found)
    return states, metrics


def jnp_copy(tree):
    import jax

    return jax.tree.map(jnp.copy, tree)


def objective(model, **options):
    """The objective of a model in its own kind and schedule."""
    return objectives.denoising(
        model.denoiser.module, kind=model.denoiser.kind, schedule=model.schedule, **options
    )
