"""The objective of CLIP: pictures and captions find each other."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def contrastive(text: Any, vision: Any) -> Callable:
    """Symmetric cross entropy of cosine similarities times exp(logit_scale), at most 100.

    Params: {"text", "vision", "logit_scale"}; batch: {"pixels", "ids", "same" [n, n] bool: pairs
    whose captions say the same, which count as matches too}.
    Source: Radford et al. 2021, figure 3.
    """

    def objective(params, cond, batch, key, step):
        _, words = text.apply({"params": params["text"]}, batch["ids"])
        _, views = vision.apply({"params": params["vision"]}, batch["pixels"])
        words, views = (unit(side["projected"]) for side in (words, views))
        logits = jnp.exp(jnp.minimum(params["logit_scale"], 4.6)) * views @ words.T
        goal = batch["same"] / batch["same"].sum(-1, keepdims=True)
        cross = optax.softmax_cross_entropy
        hit = jnp.take_along_axis(batch["same"], logits.argmax(-1)[:, None], 1).mean()
        return (cross(logits, goal) + cross(logits.T, goal)) / 2, {"hit": hit}

    return objective


def unit(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """x / |x| along the last axis."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
