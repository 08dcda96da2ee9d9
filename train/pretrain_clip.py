"""Train the tiny CLIP of the embedded model on rendered scenes and their captions.

python train/pretrain_clip.py --config configs/pretrain_clip.py --out runs/clip
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from diffedit_jax.models.clip import CLIPText, CLIPVision
from diffedit_jax.scenes import caption, captions, render_batch, sample_caption, tokenizer
from diffedit_jax.training import data, weights
from diffedit_jax.training.contrastive import contrastive
from diffedit_jax.training.launch import arguments, start
from diffedit_jax.training.loop import fit
from diffedit_jax.training.products import produce
from diffedit_jax.training.selections import Everything
from diffedit_jax.training.task import Task

MEAN = np.asarray((0.48145466, 0.4578275, 0.40821073), np.float32)  # CLIP's own
STD = np.asarray((0.26862954, 0.26130258, 0.27577711), np.float32)


def towers(config, vocabulary, dtype):
    """The text and the image tower, both ending in a projection; they compute in dtype."""
    words = {**config["text_config"], "vocab_size": vocabulary, "eos_token_id": vocabulary - 1}
    config = {**config, "text_config": words}
    return CLIPText.from_config(config, dtype=dtype), CLIPVision.from_config(config, dtype=dtype)


def initial(text, vision, seed):
    """Random parameters and CLIP's starting temperature."""
    keys = jax.random.split(jax.random.PRNGKey(seed))
    ids = jnp.zeros((1, text.max_position_embeddings), jnp.int32)
    pixels = jnp.zeros((1, vision.image_size, vision.image_size, 3))
    return {
        "text": jax.jit(text.init)(keys[0], ids)["params"],
        "vision": jax.jit(vision.init)(keys[1], pixels)["params"],
        "logit_scale": jnp.float32(2.6592),
    }


def make_batch(config, tokenize):
    """Normalised pictures with noise, captions, and which pairs say the same."""

    def batch(step):
        rng = np.random.default_rng((config.seed, step, 3))
        scenes = data.scenes_of(config.seed, step, config.batch)
        pictures = render_batch(scenes).astype(np.float32) / 255
        amount = rng.uniform(0, config.noise / 2, (len(scenes), 1, 1, 1))
        pictures = pictures + amount * rng.standard_normal(pictures.shape)
        plain = np.asarray([caption(scene) for scene in scenes])
        return {
            "pixels": ((pictures - MEAN) / STD).astype(np.float32),
            "ids": tokenize([sample_caption(rng, scene) for scene in scenes]),
            "same": (plain[:, None] == plain[None]).astype(np.float32),
        }

    return batch


def main():
    """Train and write clip.safetensors."""
    run = arguments(__doc__)
    config, out = run.config, run.out
    produce(lambda: tokenizer.write_tokenizer(out / "tokenizer", captions.words()))
    tokenize = data.load_tokenizer(out / "tokenizer")
    vocabulary = int(tokenize([""]).max()) + 1
    text, vision = towers(config.network.to_dict(), vocabulary, jnp.dtype(config.compute))
    params = initial(text, vision, config.seed)
    task = Task("pretrain_clip", params, contrastive(text, vision), Everything())
    batches = data.Stepped(make_batch(config, tokenize), run.share)
    final = fit(task, batches, config, out, mesh=run.mesh, quiet=run.quiet)
    produce(lambda found: weights.save(found, out / "clip.safetensors"), final.average)


if __name__ == "__main__":
    start(main)
