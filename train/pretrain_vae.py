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
from diffedit_jax.training import autoencoder, data, weights
from diffedit_jax.training.agree import by_first, on_host
from diffedit_jax.training.launch import arguments, start
from diffedit_jax.training.loop import fit
from diffedit_jax.training.products import produce
from diffedit_jax.training.selections import Everything, Paths
from diffedit_jax.training.settings import complete
from diffedit_jax.training.task import Task

SHARED = ("schedule", "warmup", "betas", "average")


def initial(vae, config):
    """Random parameters with a small posterior variance, so that no information drowns at first."""
    params = jax.jit(vae.init)(jax.random.PRNGKey(config.seed), jnp.zeros((1, 32, 32, 3)))["params"]
    bias = params["quant_conv"]["bias"]
    kernel = params["quant_conv"]["kernel"].at[..., bias.shape[0] // 2 :].multiply(0.1)
    bias = bias.at[bias.shape[0] // 2 :].set(config.logvar_bias)
    return {**params, "quant_conv": {"kernel": kernel, "bias": bias}}


def settings(config, part):
    """The trainer's settings of one part of the run."""
    shared = {name: config[name] for name in ("seed", "save_every", "log_every", *SHARED)}
    return complete({**shared, **part})


def train_both(vae, params, stage, config, run):
    """Encoder and decoder together: on crops (cheap), then on whole pictures.

    Group norms see other statistics in a crop than in a whole picture, so the second is needed.
    """
    objective = autoencoder.whole(vae, kl=config.kl, noise_after=stage.noise_after)
    task = Task("pretrain_vae", {"vae": params}, objective, Everything())
    batches = data.Stepped(data.crops(stage.seed, stage.batch, stage.crop), run.share)
    part = dict(steps=stage.steps, batch=stage.batch, rate=stage.rate, warmup=stage.warmup)
    folder = run.out / stage.folder
    final = fit(task, batches, settings(config, part), folder, mesh=run.mesh, quiet=run.quiet)
    return on_host(final.average["vae"])


def train_decoder(vae, params, config, run):
    """The decoder alone on whole pictures, encoder frozen."""
    selection = Paths(autoencoder.DECODER)
    task = Task("pretrain_vae", {"vae": params}, autoencoder.decoded(vae), selection)
    batches = data.Stepped(data.crops(config.seed + 1, config.decoder_batch, 64), run.share)
    part = dict(steps=config.decoder_steps, batch=config.decoder_batch, rate=config.decoder_rate)
    folder = run.out / "decoder"
    final = fit(task, batches, settings(config, part), folder, mesh=run.mesh, quiet=run.quiet)
    return selection.join(task.params, on_host(final.average))["vae"]


def fold(vae, params, seed, count=512):
    """Fold the latent statistics of `count` scenes into the weights."""
    encode = jax.jit(lambda x: vae.apply({"params": params}, x, method="encode")[0])
    parts = [data.to_unit(render_batch(data.scenes_of(seed, k, 64))) for k in range(count // 64)]
    latents = jnp.concatenate([encode(part) for part in parts])
    return autoencoder.fold_statistics(params, latents.mean((0, 1, 2)), latents.std((0, 1, 2)))


def latent_space(vae, config, run):
    """The parameters that fix what a latent is: made once, so that a later UNet stays valid."""
    path = run.out / "folded.safetensors"
    if not by_first(path.exists):
        params = train_both(vae, initial(vae, config), config.crops, config, run)
        params = train_both(vae, params, config.whole, config, run)
        produce(lambda: weights.save(fold(vae, params, config.seed + 2), path))
    return weights.load(path)


def main():
    """Both halves, the fold, then the decoder; vae.safetensors is written after each part."""
    run = arguments(__doc__)
    dtype = jnp.dtype(run.config.compute)
    vae = AutoencoderKL.from_config(run.config.network.to_dict(), dtype=dtype)
    params = latent_space(vae, run.config, run)
    produce(lambda: weights.save(params, run.out / "vae.safetensors"))
    if run.config.decoder_steps:
        params = train_decoder(vae, params, run.config, run)
        produce(lambda: weights.save(params, run.out / "vae.safetensors"))


if __name__ == "__main__":
    start(main)
