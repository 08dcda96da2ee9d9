"""Objectives of diffusion training: pure functions of parameters and a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffedit_jax.core.denoiser import Cond
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


def uniform_times(key: Any, count: int, train_steps: int) -> Int[Array, "n"]:
    """`count` independent timesteps of 0 .. T-1."""
    return jax.random.randint(key, (count,), 0, train_steps)


def min_snr_weights(kind: str, abar: Float[Array, "n"], gamma: float) -> Float[Array, "n"]:
    """How much an example counts at its noise level, snr = abar / (1 - abar).

    epsilon: min(1, gamma / snr);  v_prediction: min(snr, gamma) / (snr + 1);
    sample: min(snr, gamma). At snr = 0 (zero terminal SNR) the first is its limit, 1, where the
    scripts' min(snr, gamma) / snr is 0 / 0.
    Source: Hang et al. 2023, section 3.4; diffusers examples/dreambooth/train_dreambooth.py.
    """
    snr = abar / (1 - abar)
    if kind == "epsilon":
        return jnp.minimum(1.0, gamma / snr)
    least = jnp.minimum(snr, gamma)
    return least / (snr + 1) if kind == "v_prediction" else least


def prior_weights(subjects: int, classes: int, weight: float) -> Float[np.ndarray, "n"]:
    """batch["weight"] of a batch [subjects; class pictures], so that the trainer's mean is

    mean over subjects + weight * mean over class pictures. Source: Ruiz et al. 2022, eq. 2.
    """
    n = subjects + classes
    parts = [np.full(subjects, n / subjects)]
    if classes:
        parts.append(np.full(classes, weight * n / classes))
    return np.concatenate(parts).astype(np.float32)


def denoising(
    unet: Any,
    *,
    kind: str,
    schedule: Schedule,
    times: Callable = uniform_times,
    min_snr: float = 0.0,
    offset: float = 0.0,
    encode: Callable | None = None,
) -> Callable:
    """|network(alpha x0 + sigma eps, t, cond) - target|^2, the mean over each example's latent.

    Batch: "latent" [n, h, w, c] scaled; "deviation" [n, h, w, c], if there, is the posterior's, and
    x0 = latent + deviation * normal. "noise" and "t" [n], if there, are not drawn. "prior" [n] bool
    marks examples whose min-SNR weight is 1, as the DreamBooth script has it. With `encode`,
    "image" [n, H, W, 3] in 0 .. 255 stands for "latent" and "deviation".

    Args:
      kind: what the network predicts, "epsilon", "v_prediction" or "sample".
      times: (key, n, train_steps) -> [n].
      min_snr: gamma of `min_snr_weights`; 0: every level counts the same.
      offset: eps + offset * normal [n, 1, 1, c], which moves the brightness of pictures.
      encode: of `encoding.encoder_of`.

    Source: Ho et al. 2020 eq. 14; Rombach et al. 2022 eq. 3; diffusers examples (noise offset).
    """
    abar = jnp.asarray(schedule.abar)

    def objective(params, cond, batch, key, step):
        keys = jax.random.split(key, 4)
        x0 = _clean(batch if encode is None else _encoded(encode, params, batch), keys[0])
        t = batch["t"] if "t" in batch else times(keys[1], len(x0), schedule.train_steps)
        noise = _noise(batch, x0, keys[2], keys[3], offset)
        alpha, sigma = (f(abar[t])[:, None, None, None] for f in (jnp.sqrt, _sigma))
        found = ask(unet, params["unet"], alpha * x0 + sigma * noise, t, cond)
        error = jnp.square(found - target(kind, x0, noise, alpha, sigma)).mean((1, 2, 3))
        if not min_snr:
            return error, {}
        weight = min_snr_weights(kind, abar[t], min_snr)
        if "prior" in batch:
            weight = jnp.where(batch["prior"], 1.0, weight)
        return weight * error, {"unweighted": error.mean()}

    return objective


def ask(unet: Any, params: Any, x: Latents, t: Int[Array, "n"], cond: Cond) -> Latents:
    """The network's answer in its own kind; of a learned variance, the first half of channels."""
    width = x.shape[-1]
    if cond.channels is not None:
        x = jnp.concatenate([x, cond.channels.astype(x.dtype)], axis=-1)
    more = {k: v for k, v in (("added", cond.added), ("context_mask", cond.mask)) if v is not None}
    return unet.apply({"params": params}, x, t, cond.text, **more)[0][..., :width]


def _encoded(encode, params, batch):
    mean, deviation = encode(params, batch["image"])
    return {"latent": mean, "deviation": deviation}


def _clean(batch, key):
    x0 = batch["latent"].astype(jnp.float32)
    if "deviation" not in batch:
        return x0
    return x0 + batch["deviation"] * jax.random.normal(key, x0.shape)


def _noise(batch, x0, key, other, offset):
    noise = batch["noise"] if "noise" in batch else jax.random.normal(key, x0.shape)
    if not offset:
        return noise
    return noise + offset * jax.random.normal(other, (len(x0), 1, 1, x0.shape[-1]))


def _sigma(abar):
    return jnp.sqrt(1 - abar)
