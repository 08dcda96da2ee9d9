"""Train the judge on noisy and blurred renders (never on generated pictures).

python train/pretrain_judge.py --config configs/pretrain_judge.py --out runs/judge
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffedit_jax.bench import judge
from diffedit_jax.scenes import render_batch, world
from diffedit_jax.training import data
from diffedit_jax.training.launch import arguments, start
from diffedit_jax.training.loop import fit
from diffedit_jax.training.products import produce
from diffedit_jax.training.selections import Everything
from diffedit_jax.training.task import Task

EVERY_OBJECT = (*world.OBJECTS, *world.HELD_OUT_OBJECTS)


def blur(x):
    """Separable [1, 2, 1] / 4 blur of [n, h, w, 3]."""
    for axis in (1, 2):
        x = 0.5 * x + 0.25 * (jnp.roll(x, 1, axis) + jnp.roll(x, -1, axis))
    return x


def disturb(key, x, most):
    """Blur a third of the pictures once and a third twice, then add noise of 0 to `most`."""
    kinds, amounts, noise = jax.random.split(key, 3)
    kind = jax.random.randint(kinds, (len(x), 1, 1, 1), 0, 3)
    once = blur(x)
    x = jnp.where(kind == 0, x, jnp.where(kind == 1, once, blur(once)))
    amount = jax.random.uniform(amounts, (len(x), 1, 1, 1), maxval=most)
    return x + amount * jax.random.normal(noise, x.shape)


def make_objective(noise):
    """Sum of the cross entropies of all heads."""

    def objective(params, cond, batch, key, step):
        pictures = disturb(key, batch["image"], noise)
        logits = judge.Judge().apply({"params": params["judge"]}, pictures)
        cross = optax.softmax_cross_entropy_with_integer_labels
        terms = {name: cross(logits[name], batch[name]) for name in judge.HEADS}
        return sum(terms.values()), {name: terms[name].mean() for name in ("object", "style")}

    return objective


def make_batch(config):
    """Labelled renders by step; held-out pairs and objects included."""

    def batch(step):
        scenes = data.scenes_of(
            config.seed, step, config.batch, held_out=None, objects=EVERY_OBJECT
        )
        return {"image": data.to_unit(render_batch(scenes)), **judge.labels(scenes)}

    return batch


def accuracy(params, count=512, seed=10_001):
    """Accuracy per head on clean renders of unseen seeds."""
    scenes = data.scenes_of(seed, 0, count, held_out=None, objects=EVERY_OBJECT)
    right = judge.right(params, render_batch(scenes), scenes)
    return {name: float(np.mean(values)) for name, values in right.items()}


def main():
    """Train, measure on clean renders, write the weights."""
    run = arguments(__doc__)
    config = run.config
    params = judge.Judge().init(jax.random.PRNGKey(config.seed), jnp.zeros((1, 64, 64, 3)))
    start = {"judge": params["params"]}
    task = Task("pretrain_judge", start, make_objective(config.noise), Everything())
    batches = data.Stepped(make_batch(config), run.share)
    final = fit(task, batches, config, run.out, mesh=run.mesh, quiet=run.quiet)

    def write(found):
        run.say(str(accuracy(found)))
        judge.save_judge(found, run.out / "judge.safetensors")

    produce(write, final.average["judge"])


if __name__ == "__main__":
    start(main)
