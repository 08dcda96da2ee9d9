"""InstructPix2Pix: a text-to-image model learns to edit a picture as an instruction says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from ..agree import on_host
from ..conditions import instruct_condition
from ..data import WHOLE, Share, Stepped
from ..pair_streams import folder_stream, rendered_stream
from ..pairs import Pairs, folder_pairs, rendered_pairs
from ..selections import Paths
from ..sharding import NETWORK_RULES
from ..task import Task
from .shared import (
    empty_text,
    encoder,
    frozen,
    limits_of,
    objective_of,
    told,
    with_channels,
)


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
    ways = dict(empty=empty_text(model, config), encode=encoder(model, config, scaled=False))
    condition = instruct_condition(model.texts[0].module, drop=config.drop, **ways)
    return Task(
        "instruct_pix2pix", frozen(model, config), objective_of(model, config),
        Paths(config.trained), condition, NETWORK_RULES, limits_of(model),
    )  # fmt: skip


def instruct_pairs(model: Any, config: Any, data: Path | None, out: Path) -> Pairs:
    """The pairs of a folder, or rendered scenes where none is named (the embedded model's data)."""
    keep = out / "pairs.npy"
    if data is None:
        return rendered_pairs(model, config.pairs, config.seed, keep, config.flip)
    return folder_pairs(model, data, keep, config.flip, skip_broken=config.skip_broken)


def instruct_data(
    model: Any, config: Any, data: Path | None, out: Path, share: Share = WHOLE
) -> tuple[Any, Pairs]:
    """(data for `fit`, pairs to look at): `instruct_pairs`, or pairs that are read anew.

    config: batch, seed, flip, skip_broken; cache_latents (False reads anew, and encodes in the
    step), cache_texts (states of so many instructions are kept).
    """
    if config.get("cache_latents", True):
        pairs = instruct_pairs(model, config, data, out)
        made = Stepped(pairs.batches(model.tokenize, config.batch, config.seed), share)
    else:
        stream = rendered_stream(config.pairs, config.seed)
        if data is not None:
            stream = folder_stream(data, model.size)
        ways = dict(batch=config.batch, seed=config.seed, share=share)
        leave = dict(flip=config.flip, skip_broken=config.skip_broken)
        made = stream.data(model.tokenize, **ways, **leave)
        pairs = stream.few(model, config.look_count, config.seed) if config.look_every else None
    return told(model, config, made), pairs


def with_unet(model: Any, trained: Any) -> Any:
    """The model with what was trained."""
    both = flatten_dict(model.denoiser.params) | flatten_dict(on_host(trained["unet"]))
    return model.replace(denoiser=model.denoiser.replace(params=unflatten_dict(both)))
