"""What the tasks of one model and one objective have in common."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...errors import UserError
from .. import objectives
from ..data import Changed
from ..encoding import KnownTexts, encoder_of
from ..settings import complete


def frozen(model: Any, config: Any = None) -> dict:
    """The networks that take part in training: {"unet", "text_encoder", "vae"}.

    Without the text encoder if config.cache_texts; with the autoencoder if not
    config.cache_latents.
    """
    found = {"unet": model.denoiser.params, "text_encoder": model.texts[0].params}
    if config is not None and config.get("cache_texts", 0):
        del found["text_encoder"]
    return found | autoencoder(model, config)


def autoencoder(model: Any, config: Any = None) -> dict:
    """{"vae"}, for a step that encodes its pictures; else nothing."""
    inside = config is not None and not config.get("cache_latents", True)
    return {"vae": model.vae.params} if inside else {}


def empty_text(model: Any, config: Any) -> Any:
    """What stands for a text that is left out: ids [tokens], or its state if texts are kept."""
    ids = jnp.asarray(model.tokenize([""]))
    return model.text(ids)[0] if config.get("cache_texts", 0) else ids[0]


def told(model: Any, config: Any, data: Any) -> Any:
    """The data; with config.cache_texts, states instead of ids, so many of which are kept."""
    if not config.get("cache_texts", 0):
        return data
    return Changed(data, KnownTexts(model.texts[0], config.get("cache_texts", 0)))


def encoder(model: Any, config: Any, **more: Any) -> Any:
    """`encoder_of` the model for a step that encodes its pictures; else None."""
    return None if config.get("cache_latents", True) else encoder_of(model, **more)


def limits_of(model: Any) -> dict[str, int]:
    """What a batch's token ids and timesteps look up: {"ids": words, "t": timesteps}."""
    return {"ids": model.texts[0].module.vocab_size, "t": model.schedule.train_steps}


def objective_of(model: Any, config: Any) -> Any:
    """The denoising objective of a model, in its own kind and schedule.

    config: focus (share of `stratified_times` at middle noise; -1: independent uniform times),
    min_snr, offset; cache_latents, where a task has it: False encodes pictures in the step.

    Raises: UserError for a model that computes in another dtype than config.compute.
    """
    _check_products(model.denoiser.module, config)
    times = objectives.uniform_times
    if config.focus >= 0:
        times = partial(objectives.stratified_times, focus=config.focus)
    return objectives.denoising(
        model.denoiser.module, kind=model.denoiser.kind, schedule=model.schedule, times=times,
        min_snr=config.min_snr, offset=config.offset, encode=encoder(model, config),
    )  # fmt: skip


def _check_products(unet: Any, config: Any) -> None:
    found, wanted = jnp.dtype(unet.operands or unet.dtype).name, complete(config).compute
    if found != wanted:
        raise UserError(
            f"the model computes in {found} and the training in {wanted}: load the model with "
            f'dtype="{wanted}", or set compute={found}'
        )


def learned(state: Any) -> Any:
    """What a run has learned: the average if it keeps one."""
    return state.trained if state.average is None else state.average


def with_channels(model: Any, more: int, task: str) -> Any:
    """The model whose UNet takes `more` further channels, ignored at first.

    conv_in: the first kernels and the bias are copied, the new kernels are zero. A model with the
    channels already is returned as it is, and training goes on.
    """
    channels = model.latent_channels
    if model.in_channels == channels + more:
        return model
    if model.in_channels != channels:
        raise UserError(f"{task} cannot start from a UNet of {model.in_channels} channels")
    network, configs = model.denoiser, model.configs
    module = network.module.clone(in_channels=channels + more)
    first = network.params["conv_in"]
    kernel = widened_kernel(first["kernel"], more)
    params = {**network.params, "conv_in": {**first, "kernel": kernel}}
    configs["unet"] = {**configs["unet"], "in_channels": channels + more}
    return model.replace(
        denoiser=network.replace(params=params, module=module),
        configs_json=json.dumps(configs, sort_keys=True),
    )


def widened_kernel(kernel: Float[Array, "kh kw c d"], more: int) -> Float[Array, "kh kw e d"]:
    """The kernel with `more` input channels, all zero, behind its own."""
    return jnp.pad(kernel, ((0, 0), (0, 0), (0, more), (0, 0)))
