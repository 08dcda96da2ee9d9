"""Make a model that paints by example of a text-to-image model.

python train/paint_by_example.py --config configs/train_paint_by_example.py --out runs/example

With --data, on a folder of pictures with boxes (see docs/personalisation.md); without, on rendered
scenes. Writes runs/example/model, a diffusers folder of the averaged weights.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffedit_jax.bundles import load
from diffedit_jax.training import weights
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.launch import arguments
from diffedit_jax.training.loop import fit
from diffedit_jax.training.tasks import paint_by_example as task
from diffedit_jax.training.tasks.instruct_pix2pix import write_model
from diffedit_jax.training.tasks.shared import learned


def main():
    """Encode the examples, train, write the model."""
    run = arguments(__doc__)
    config = run.config
    model = task.by_example(load(config.model), config.tower, config.seed)
    examples = task.examples_of(model, config, run.data, run.out)
    batches = examples.batches(config.batch, config.seed)

    def keep(_, state):
        weights.save(learned(state), run.out / "trained.safetensors")

    state = fit(task.example_task(model, config), Stepped(batches, run.share), config, run.out,
                mesh=run.mesh, watch=keep, quiet=run.quiet)  # fmt: skip
    if int(state.updates) == config.steps:  # else cut off; the same command goes on
        write_model(task.with_trained(model, learned(state)), run.out / "model", config.dtype)


if __name__ == "__main__":
    main()
