"""Objectives of the autoencoder, and the folding of its latent statistics."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Pictures = Float[Array, "n h w c"]
EACH = (1, 2, 3)  # the axes of one picture


def gradients(x: Pictures) -> tuple[Pictures, Pictures]:
    """Differences of neighbouring pixels, down and across."""
    return x[:, 1:] - x[:, :-1], x[:, :, 1:] - x[:, :, :-1]


def reconstruction(found: Pictures, wanted: Pictures) -> Float[Array, "n"]:
    """L = mean |d| + 0.5 mean |grad d| + mean d^2, d = found - wanted, pictures in [-1, 1]."""
    difference = found - wanted
    edges = sum(jnp.abs(part).mean(EACH) for part in gradients(difference))
    return jnp.abs(difference).mean(EACH) + 0.5 * edges + jnp.square(difference).mean(EACH)


def divergence(mean: Pictures, logvar: Pictures) -> Float[Array, "n"]:
    """KL(N(mean, exp logvar) || N(0, 1)) = (mean^2 + exp logvar - 1 - logvar) / 2, averaged."""
    return 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1 - logvar).mean(EACH)


def whole(vae: Any, *, kl: float, noise_after: int) -> Callable:
    """Reconstruction + kl * divergence. The latent is its mean for the first `noise_after` steps.

    Sampling from step 0 lets the noise swamp an untrained encoder, and the posterior collapses.
    Params: {"vae"}; batch: {"image" [n, h, w, 3] in [-1, 1]}.
    """

    def objective(params, cond, batch, key, step):
        image, weights = batch["image"], {"params": params["vae"]}
        mean, logvar = vae.apply(weights, image, method="encode")
        noise = jax.random.normal(key, mean.shape) * jnp.exp(0.5 * logvar)
        z = mean + jnp.where(step >= noise_after, noise, 0.0)
        found = vae.apply(weights, z, method="decode")
        error, prior = reconstruction(found, image), divergence(mean, logvar)
        facts = {
            "psnr": psnr(found, image),
            "kl": prior.mean(),
            "mean_size": jnp.std(mean),
            "deviation": jnp.exp(0.5 * logvar).mean(),
        }
        return error + kl * prior, facts

    return objective


DECODER = r"vae/(decoder|post_quant_conv)/.*"  # the parameters that a decoder uses


def decoded(vae: Any) -> Callable:
    """Reconstruction from the posterior's mean, for a decoder that is trained alone.

    Params and batch as for `whole`.
    """

    def objective(params, cond, batch, key, step):
        image, weights = batch["image"], {"params": params["vae"]}
        mean, _ = vae.apply(weights, image, method="encode")
        found = vae.apply(weights, mean, method="decode")
        return reconstruction(found, image), {"psnr": psnr(found, image)}

    return objective


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
