"""InstructPix2Pix: a text-to-image model learns to edit a picture as an instruction says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from ...bundles import save
from ...errors import UserError
from ..conditions import instruct_condition
from ..pairs import Pairs, folder_pairs, rendered_pairs
from ..selections import Paths
from ..sharding import NETWORK_RULES
from ..task import Task
from .shared import frozen, objective_of


def widened(model: Any) -> Any:
    """The model with as many channels again for a picture to be edited, ignored at first.

    conv_in: the first kernels and the bias are copied, the new kernels are zero. A model with the
    channels already is returned as it is, and training goes on.
    Source: Brooks et al. 2023, section 3.2; timothybrooks/instruct-pix2pix ddpm_edit.py
    init_from_ckpt (diffusers' script leaves the bias random).
    """
    channels = model.latent_channels
    if model.in_channels == 2 * channels:
        return model
    if model.in_channels != channels:
        raise UserError(
            f"instruct_pix2pix cannot start from a UNet of {model.in_channels} channels"
        )
    network, configs = model.denoiser, model.configs
    module = network.module.clone(in_channels=2 * channels)
    first = network.params["conv_in"]
    kernel = widened_kernel(first["kernel"], channels)
    params = {**network.params, "conv_in": {**first, "kernel": kernel}}
    configs["unet"] = {**configs["unet"], "in_channels": 2 * channels}
    return model.replace(
        denoiser=network.replace(params=params, module=module),
        configs_json=json.dumps(configs, sort_keys=True),
    )


def widened_kernel(kernel: Float[Array, "kh kw c d"], more: int) -> Float[Array, "kh kw e d"]:
    """The kernel with `more` input channels, all zero, behind its own."""
    return jnp.pad(kernel, ((0, 0), (0, 0), (0, more), (0, 0)))


def instruct_task(model: Any, config: Any) -> Task:
    """The UNet of a widened model learns; text encoder and autoencoder stay as they are.

    config: drop (share of texts, pictures, and both that are left out), trained (pattern over the
    paths of parameters, "unet/.*" for all), and what `objective_of` reads.
    """
    empty = jnp.asarray(model.tokenize([""])[0])
    condition = instruct_condition(model.texts[0].module, drop=config.drop, empty=empty)
    return Task(
        "instruct_pix2pix", frozen(model), objective_of(model, config), Paths(config.trained),
        condition, NETWORK_RULES,
    )  # fmt: skip


def instruct_pairs(model: Any, config: Any, data: Path | None, out: Path) -> Pairs:
    """The pairs of a folder, or rendered scenes where none is named (the embedded model's data)."""
    keep = out / "pairs.npy"
    if data is None:
        return rendered_pairs(model, config.pairs, config.seed, keep)
    return folder_pairs(model, data, keep)


def with_unet(model: Any, trained: Any) -> Any:
    """The model with what was trained."""
    both = flatten_dict(model.denoiser.params) | flatten_dict(jax.device_get(trained["unet"]))
    return model.replace(denoiser=model.denoiser.replace(params=unflatten_dict(both)))


def write_model(model: Any, folder: Path, dtype: str | None) -> None:
    """A whole diffusers folder, in place of one that is there from an earlier end of this run."""
    import shutil

    if (folder / "model_index.json").is_file():
        shutil.rmtree(folder)
    save(model, folder, dtype=dtype or None)
