"""Objectives of the autoencoder, and the folding of its latent statistics."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Pictures = Float[Array, "n h w c"]


def gradients(x: Pictures) -> tuple[Pictures, Pictures]:
    """Differences of neighbouring pixels, down and across."""
    return x[:, 1:] - x[:, :-1], x[:, :, 1:] - x[:, :, :-1]


def reconstruction(found: Pictures, wanted: Pictures) -> Float[Array, ""]:
    """L = mean |d| + 0.5 mean |grad d| + mean d^2, d = found - wanted, pictures in [-1, 1]."""
    difference = found - wanted
    edges = sum(jnp.abs(part).mean() for part in gradients(difference))
    return jnp.abs(difference).mean() + 0.5 * edges + jnp.square(difference).mean()


def divergence(mean: Pictures, logvar: Pictures) -> Float[Array, ""]:
    """KL(N(mean, exp logvar) || N(0, 1)) = (mean^2 + exp logvar - 1 - logvar) / 2, averaged."""
    return 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1 - logvar).mean()


def whole_loss(vae: Any, *, kl: float, noise_after: int) -> Callable:
    """Reconstruction + kl * divergence. The latent is its mean for the first `noise_after` steps.

    Sampling from step 0 lets the noise swamp an untrained encoder, and the posterior collapses.
    """

    def loss(params, batch, key, step):
        mean, logvar = vae.apply({"params": params}, batch, method="encode")
        noise = jax.random.normal(key, mean.shape) * jnp.exp(0.5 * logvar)
        z = mean + jnp.where(step >= noise_after, noise, 0.0)
        found = vae.apply({"params": params}, z, method="decode")
        error, prior = reconstruction(found, batch), divergence(mean, logvar)
        facts = {
            "psnr": psnr(found, batch),
            "kl": prior,
            "mean_size": jnp.std(mean),
            "deviation": jnp.exp(0.5 * logvar).mean(),
        }
        return error + kl * prior, facts

    return loss


def decoder_loss(vae: Any, encoder: Any) -> Callable:
    """Reconstruction by the decoder alone; `encoder` holds the frozen parameters."""

    def loss(params, batch, key, step):
        del key, step
        mean, _ = vae.apply({"params": encoder}, batch, method="encode")
        found = vae.apply({"params": {**encoder, **params}}, mean, method="decode")
        return reconstruction(found, batch), {"psnr": psnr(found, batch)}

    return loss


def decoder_half(params: dict) -> dict:
    """The parameters that the decoder uses."""
    return {name: params[name] for name in ("decoder", "post_quant_conv") if name in params}


def psnr(found: Pictures, wanted: Pictures) -> Float[Array, ""]:
    """10 log10(4 / mean d^2) in dB, pictures in [-1, 1]."""
    return 10 * jnp.log10(4 / jnp.square(jnp.clip(found, -1, 1) - wanted).mean())


def fold_statistics(params: dict, mean: Float[Array, "c"], std: Float[Array, "c"]) -> dict:
    """Make every latent channel zero mean and unit deviation without changing a picture.

    quant_conv: z' = (z - mean) / std, logvar' = logvar - 2 log std;
    post_quant_conv: z = std z' + mean.
    `mean`, `std`: per-channel statistics of z. scaling_factor can then stay 1.
    """
    quant, post = params["quant_conv"], params["post_quant_conv"]
    scale = jnp.concatenate([1 / std, jnp.ones_like(std)])
    shift = jnp.concatenate([-mean / std, -2 * jnp.log(std)])
    folded = {
        "quant_conv": {"kernel": quant["kernel"] * scale, "bias": quant["bias"] * scale + shift},
        "post_quant_conv": {
            "kernel": post["kernel"] * std[:, None],
            "bias": post["bias"] + mean @ post["kernel"][0, 0],
        },
    }
    return {**params, **folded}
