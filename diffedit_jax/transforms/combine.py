"""Guidance: several questions about one latent, answered in one call, summed with weights."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..core import Transform


class Combine(Transform):
    """prediction = sum_b weights[b] prediction[b], the branches stacked in front of the rows.

    Classifier-free guidance: weights (1 - s, s) over (null, text); InstructPix2Pix:
    (1 - s_I, s_I - s_T, s_T) over (nothing, image, image and text). `cond` carries the branches:
    its leaves are [branches, *rows, ...]. Because the weights sum to 1, mixing eps, x0 or v is the
    same. `rescale` pulls the result's spread towards the last branch's (Lin et al. 2023, eq. 15):
    y = mix * std(text) / std(mix);  rescale * y + (1 - rescale) * mix, std over each row (ddof 1).

    Source: Ho & Salimans 2022 (2207.12598) eq. 6, with s = 1 + w; Brooks et al. 2023 eq. 3.
    """

    weights: Any  # [branches]
    rescale: Any = None  # [] in [0, 1]; None leaves it out of the program

    def denoise(self, inner, state):
        def ask(x, step, cond, control=None):
            stacked = jnp.broadcast_to(x, (self.weights.shape[0], *x.shape))
            branches = inner(stacked, step, cond, control)
            mixed = branches.combined(self.weights)
            if self.rescale is None:
                return mixed
            return mixed.with_output(self._rescaled(mixed.output, branches.output[-1]))

        return ask

    def _rescaled(self, mixed, text):
        axes = (-3, -2, -1)
        ratio = jnp.std(text, axes, ddof=1, keepdims=True) / jnp.std(
            mixed, axes, ddof=1, keepdims=True
        )
        return (self.rescale * ratio + 1 - self.rescale) * mixed


def guidance_weights(scale):
    """(1 - s, s): classifier-free guidance with s = 1 for the text alone. [] or [b] -> [.., 2]."""
    scale = jnp.asarray(scale, jnp.float32)
    return jnp.stack([1 - scale, scale], axis=-1)
