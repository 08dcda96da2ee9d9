"""InstructPix2Pix: a text-to-image model learns to edit a picture as an instruction says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from ..agree import on_host
from ..conditions import instruct_condition
from ..pairs import Pairs, folder_pairs, rendered_pairs
from ..selections import Paths
from ..sharding import NETWORK_RULES
from ..task import Task
from .shared import frozen, limits_of, objective_of, with_channels


def widened(model: Any) -> Any:
    """The model with as many channels again for a picture to be edited, ignored at first.

    A model with the channels already is returned as it is, and training goes on.
    Source: Brooks et al. 2023, section 3.2; timothybrooks/instruct-pix2pix ddpm_edit.py
    init_from_ckpt (diffusers' script leaves the bias random).
    """
    return with_channels(model, model.latent_channels, "instruct_pix2pix")


def instruct_task(model: Any, config: Any) -> Task:
    """The UNet of a widened model learns; text encoder and autoencoder stay as they are.

    config: drop (share of texts, pictures, and both that are left out), trained (pattern over the
    paths of parameters, "unet/.*" for all), and what `objective_of` reads.
    """
    empty = jnp.asarray(model.tokenize([""])[0])
    condition = instruct_condition(model.texts[0].module, drop=config.drop, empty=empty)
    return Task(
        "instruct_pix2pix", frozen(model), objective_of(model, config), Paths(config.trained),
        condition, NETWORK_RULES, limits_of(model),
    )  # fmt: skip


def instruct_pairs(model: Any, config: Any, data: Path | None, out: Path) -> Pairs:
    """The pairs of a folder, or rendered scenes where none is named (the embedded model's data)."""
    keep = out / "pairs.npy"
    if data is None:
        return rendered_pairs(model, config.pairs, config.seed, keep, config.flip)
    return folder_pairs(model, data, keep, config.flip, skip_broken=config.skip_broken)


def with_unet(model: Any, trained: Any) -> Any:
    """The model with what was trained."""
    both = flatten_dict(model.denoiser.params) | flatten_dict(on_host(trained["unet"]))
    return model.replace(denoiser=model.denoiser.replace(params=unflatten_dict(both)))
