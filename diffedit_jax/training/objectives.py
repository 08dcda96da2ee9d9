"""Objectives of diffusion and contrastive training: pure functions of parameters and a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from diffedit_jax.core.time import Schedule

Latents = Float[Array, "n h w c"]


def stratified_times(key: Any, count: int, train_steps: int, focus: float = 0.0) -> Int[Array, "n"]:
    """One timestep from each of `count` equal parts of 0 .. T-1: t_i = floor(T (i + u_i) / n).

    A share `focus` of them is instead T sigmoid(q), q from equal parts of the normal distribution:
    most at middle noise, where shapes are decided, few where only the mean can be known.
    Source of the latter: Esser et al. 2024, section 3.1.
    """
    special = round(focus * count)
    keys = jax.random.split(key)
    even = _strata(keys[0], count - special)
    middle = jax.nn.sigmoid(jax.scipy.special.ndtri(jnp.clip(_strata(keys[1], special), 1e-6)))
    spread = jnp.concatenate([even, middle]) * train_steps
    return jnp.minimum(spread, train_steps - 1).astype(jnp.int32)


def _strata(key, count):
    return (jnp.arange(count) + jax.random.uniform(key, (count,))) / max(count, 1)


def velocity(x0: Latents, noise: Latents, alpha: Any, sigma: Any) -> Latents:
    """v = alpha eps - sigma x0. Source: Salimans and Ho 2022, appendix D."""
    return alpha * noise - sigma * x0


def target(kind: str, x0: Latents, noise: Latents, alpha: Any, sigma: Any) -> Latents:
    """What a network of this prediction kind should say: "epsilon", "v_prediction" or "sample"."""
    if kind == "v_prediction":
        return velocity(x0, noise, alpha, sigma)
    return {"epsilon": noise, "sample": x0}[kind]


def text_to_image_loss(
    unet: Any,
    text: Any,
    *,
    kind: str,
    schedule: Schedule,
    drop: float,
    empty: Int[Array, "tokens"],
    focus: float = 0.0,
) -> Callable:
    """mean |network(alpha x0 + sigma eps, t, text) - target|^2 over stratified times.

    Params: {"unet", "text_encoder"}, trained together. Batch: {"latent", "ids"}. A share `drop` of
    the captions becomes `empty`, for classifier-free guidance. `focus`: see `stratified_times`.
    Source: Rombach et al. 2022 eq. 3; Ho and Salimans 2022 algorithm 1.
    """
    abar = jnp.asarray(schedule.abar)

    def loss(params, batch, key, _):
        x0 = batch["latent"].astype(jnp.float32)
        times, noises, drops = jax.random.split(key, 3)
        t = stratified_times(times, len(x0), schedule.train_steps, focus)
        alpha, sigma = (f(abar[t])[:, None, None, None] for f in (jnp.sqrt, _sigma))
        noise = jax.random.normal(noises, x0.shape)
        dropped = jax.random.bernoulli(drops, drop, (len(x0), 1))
        ids = jnp.where(dropped, empty, batch["ids"])
        context, _ = text.apply({"params": params["text_encoder"]}, ids)
        x = alpha * x0 + sigma * noise
        found, _ = unet.apply({"params": params["unet"]}, x, t, context)
        error = jnp.square(found - target(kind, x0, noise, alpha, sigma)).mean((1, 2, 3))
        return error.mean(), {"noisiest": error[jnp.argmax(t)]}

    return loss


def _sigma(abar):
    return jnp.sqrt(1 - abar)


def contrastive_loss(text: Any, vision: Any) -> Callable:
    """Symmetric cross entropy of cosine similarities times exp(logit_scale).

    Params: {"text", "vision", "logit_scale"}; batch: {"pixels", "ids", "same" [n, n] bool: pairs
    whose captions say the same, which count as matches too}.
    Source: Radford et al. 2021, figure 3.
    """

    def loss(params, batch, key, _):
        del key
        _, words = text.apply({"params": params["text"]}, batch["ids"])
        _, views = vision.apply({"params": params["vision"]}, batch["pixels"])
        words, views = (unit(side["projected"]) for side in (words, views))
        logits = jnp.exp(jnp.minimum(params["logit_scale"], 4.6)) * views @ words.T
        goal = batch["same"] / batch["same"].sum(-1, keepdims=True)
        cross = optax.softmax_cross_entropy
        value = (cross(logits, goal).mean() + cross(logits.T, goal).mean()) / 2
        hit = jnp.take_along_axis(batch["same"], logits.argmax(-1)[:, None], 1).mean()
        return value, {"hit": hit}

    return loss


def unit(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """x / |x| along the last axis."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
