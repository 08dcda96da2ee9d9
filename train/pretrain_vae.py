"""Train the autoencoder of the embedded model on rendered scenes.

python train/pretrain_vae.py --config configs/pretrain_vae.py --out runs/vae
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp

from diffedit_jax.models.vae import AutoencoderKL
from diffedit_jax.scenes import render_batch
from diffedit_jax.training import autoencoder, data, loop, state, weights
from diffedit_jax.training.launch import arguments


def initial(vae, config):
    """Random parameters with a small posterior variance, so that no information drowns at first."""
    params = jax.jit(vae.init)(jax.random.PRNGKey(config.seed), jnp.zeros((1, 32, 32, 3)))["params"]
    bias = params["quant_conv"]["bias"]
    kernel = params["quant_conv"]["kernel"].at[..., bias.shape[0] // 2 :].multiply(0.1)
    bias = bias.at[bias.shape[0] // 2 :].set(config.logvar_bias)
    return {**params, "quant_conv": {"kernel": kernel, "bias": bias}}


def train_both(vae, params, stage, config, out):
    """Encoder and decoder together: on crops (cheap), then on whole pictures.

    Group norms see other statistics in a crop than in a whole picture, so the second is needed.
    """
    optimiser = state.adamw(stage.rate, stage.steps, warmup=stage.warmup)
    start = state.create_state(params, optimiser, config.seed)
    loss = autoencoder.whole_loss(vae, kl=config.kl, noise_after=stage.noise_after)
    final = loop.fit(
        start, state.make_step(loss, optimiser), data.crops(stage.seed, stage.batch, stage.crop),
        steps=stage.steps, folder=out / stage.folder,
        save_every=config.save_every, log_every=config.log_every,
    )  # fmt: skip
    return jax.device_get(final.average)


def train_decoder(vae, params, config, out):
    """The decoder alone on whole pictures, encoder frozen."""
    optimiser = state.adamw(config.decoder_rate, config.decoder_steps)
    start = state.create_state(autoencoder.decoder_half(params), optimiser, config.seed)
    step = state.make_step(autoencoder.decoder_loss(vae, params), optimiser)
    final = loop.fit(
        start, step, data.crops(config.seed + 1, config.decoder_batch, 64),
        steps=config.decoder_steps, folder=out / "decoder",
        save_every=config.save_every, log_every=config.log_every,
    )  # fmt: skip
    return {**params, **jax.device_get(final.average)}


def fold(vae, params, seed, count=512):
    """Fold the latent statistics of `count` scenes into the weights."""
    encode = jax.jit(lambda x: vae.apply({"params": params}, x, method="encode")[0])
    parts = [data.to_unit(render_batch(data.scenes_of(seed, k, 64))) for k in range(count // 64)]
    latents = jnp.concatenate([encode(part) for part in parts])
    return autoencoder.fold_statistics(params, latents.mean((0, 1, 2)), latents.std((0, 1, 2)))


def latent_space(vae, config, out):
    """The parameters that fix what a latent is: made once, so that a later UNet stays valid."""
    path = out / "folded.safetensors"
    if not path.exists():
        params = train_both(vae, initial(vae, config), config.crops, config, out)
        params = train_both(vae, params, config.whole, config, out)
        weights.save(fold(vae, params, config.seed + 2), path)
    return weights.load(path)


def main():
    """Both halves, the fold, then the decoder; vae.safetensors is written after each part."""
    config, out = arguments(__doc__)
    vae = AutoencoderKL.from_config(config.network.to_dict(), dtype=jnp.bfloat16)
    params = latent_space(vae, config, out)
    weights.save(params, out / "vae.safetensors")
    if config.decoder_steps:
        weights.save(train_decoder(vae, params, config, out), out / "vae.safetensors")


if __name__ == "__main__":
    main()
