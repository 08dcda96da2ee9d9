"""A bundle that costs nothing: pictures are their own latents, prompts are numbers."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from diffedit_jax.core import Cond, Prediction, Schedule


class Bent(struct.PyTreeNode):
    """eps = tanh(x W + text): depends on latent and prompt as a network does, smoothly."""

    weights: Any
    kind: str = struct.field(pytree_node=False, default="epsilon")

    def __call__(self, x, step, cond, control=None):
        text = cond.text.mean(axis=-2)[..., None, None, :]
        output = jnp.tanh(x @ self.weights + text)
        return Prediction.of(self.kind, output, x, step.alpha, step.sigma)


class Toy(struct.PyTreeNode):
    """What methods ask of a bundle; the prompt "0.5" is told as 0.5, the empty one as 0."""

    denoiser: Bent
    schedule: Schedule = struct.field(pytree_node=False, default=Schedule())
    factor: int = struct.field(pytree_node=False, default=1)

    def condition(self, prompts, **sizes):
        told = jnp.asarray([float(p or 0) for p in prompts], jnp.float32)
        return Cond(text=jnp.broadcast_to(told[:, None, None], (len(prompts), 2, 3)))

    def latent_shape(self, height, width):
        return height, width, 3

    def encode(self, images, noise=None):
        return images if noise is None else images + 0.01 * noise

    def decode(self, latents):
        return latents


def toy(kind="epsilon", strength=0.4) -> Toy:
    weights = np.random.default_rng(0).normal(size=(3, 3)) * strength
    return Toy(Bent(jnp.asarray(weights, jnp.float32), kind=kind))


def two_pictures():
    """[2, 6, 6, 3] in [-1, 1], exact images of uint8 pictures."""
    pixels = np.random.default_rng(1).integers(0, 256, (2, 6, 6, 3))
    return (pixels / 127.5 - 1).astype(np.float32)


def as_uint8(images):
    return np.round((np.asarray(images) / 2 + 0.5) * 255).astype(int)
