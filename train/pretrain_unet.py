"""Train the UNet and the text encoder of the embedded model.

python train/pretrain_unet.py --config configs/pretrain_unet.py --out runs/unet \\
    --set vae=runs/vae/vae.safetensors
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp

from configs.pretrain_vae import NETWORK
from diffedit_jax.bundles import load
from diffedit_jax.core.time import Schedule
from diffedit_jax.models.clip import CLIPText
from diffedit_jax.models.unet import UNet
from diffedit_jax.models.vae import AutoencoderKL
from diffedit_jax.scenes import captions, tokenizer
from diffedit_jax.training import data, latents, objectives, weights
from diffedit_jax.training.conditions import text_condition
from diffedit_jax.training.launch import arguments, start
from diffedit_jax.training.loop import fit
from diffedit_jax.training.products import at_saves, produce
from diffedit_jax.training.selections import Everything
from diffedit_jax.training.sharding import NETWORK_RULES
from diffedit_jax.training.task import Task


def networks(config, vocabulary):
    """The UNet and the text encoder, untrained."""
    words = {**config.text.to_dict(), "vocab_size": vocabulary, "eos_token_id": vocabulary - 1}
    types = {"dtype": jnp.dtype(config.compute)}
    return UNet.from_config(config.unet.to_dict(), **types), CLIPText.from_config(words, **types)


def initial(unet, text, seed, tokens):
    """Random parameters; the UNet's last convolution starts at zero, and so does its output."""
    ids = jnp.zeros((1, tokens), jnp.int32)
    context = jnp.zeros((1, tokens, unet.context_width))
    x = jnp.zeros((1, unet.sample_size, unet.sample_size, unet.in_channels))
    keys = jax.random.split(jax.random.PRNGKey(seed))
    words = jax.jit(text.init)(keys[0], ids)["params"]
    params = jax.jit(unet.init)(keys[1], x, jnp.zeros((1,)), context)["params"]
    params["conv_out"] = jax.tree.map(jnp.zeros_like, params["conv_out"])
    return {"unet": params, "text_encoder": words}


def trained(model):
    """The parameters of a model that is there already, to go on from: float32."""
    parts = {"unet": model.denoiser.params, "text_encoder": model.texts[0].params}
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), parts)


def training_data(config, out, tokenize, model):
    """The pool of latents and its batches; `model` brings its own autoencoder, if there is one."""
    vae = AutoencoderKL.from_config(NETWORK)
    params = model.vae.params if model else weights.load(config.vae)
    pool = latents.encode_pool(vae, params, config.pool, config.seed, out / "pool.npy")
    scenes = latents.pool_scenes(config.pool, config.seed)
    emphasis = config.emphasis.to_dict()
    return latents.latent_batches(pool, scenes, tokenize, config.batch, config.seed, emphasis)


def make_task(config, unet, text, params, empty):
    """Velocity prediction over stratified times, both networks trained together."""
    times = partial(objectives.stratified_times, focus=config.focus)
    objective = objectives.denoising(
        unet, kind=config.scheduler.prediction_type, schedule=Schedule(), times=times
    )  # Stable Diffusion's schedule, as the scheduler config says
    condition = text_condition(text, drop=config.drop, empty=jnp.asarray(empty))
    limits = {"ids": text.vocab_size, "t": Schedule().train_steps}
    return Task("pretrain_unet", params, objective, Everything(), condition, NETWORK_RULES, limits)


def main():
    """Encode the pool, train, write unet.safetensors and text_encoder.safetensors."""
    run = arguments(__doc__)
    config, out = run.config, run.out
    produce(lambda: tokenizer.write_tokenizer(out / "tokenizer", captions.words()))
    tokenize = data.load_tokenizer(out / "tokenizer")
    empty = tokenize([""])[0]
    unet, text = networks(config, int(empty.max()) + 1)
    model = load(config.start) if config.start else None
    params = trained(model) if model else initial(unet, text, config.seed, len(empty))
    batches = data.Stepped(training_data(config, out, tokenize, model), run.share)

    def write(found):
        for name in ("unet", "text_encoder"):
            weights.save(found[name], out / f"{name}.safetensors")

    task = make_task(config, unet, text, params, empty)
    fit(task, batches, config, out, mesh=run.mesh, watch=at_saves(write), quiet=run.quiet)


if __name__ == "__main__":
    start(main)
