"""Make an instruction-following model of a text-to-image model.

python train/instruct_pix2pix.py --config configs/train_instruct_pix2pix.py --out runs/instruct

With --data, on a folder of pairs (see docs/personalisation.md); without, on rendered scenes. Writes
runs/instruct/model, a diffusers folder of the averaged weights.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffedit_jax.bundles import load
from diffedit_jax.training import weights
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.launch import arguments
from diffedit_jax.training.loop import fit
from diffedit_jax.training.tasks import instruct_pix2pix as task
from diffedit_jax.training.tasks.shared import learned


def main():
    """Encode the pairs, train, write the model."""
    run = arguments(__doc__)
    config = run.config
    model = task.widened(load(config.model))
    pairs = task.instruct_pairs(model, config, run.data, run.out)
    batches = pairs.batches(model.tokenize, config.batch, config.seed)

    def keep(_, state):
        weights.save(learned(state)["unet"], run.out / "unet.safetensors")

    state = fit(task.instruct_task(model, config), Stepped(batches, run.share), config, run.out,
                mesh=run.mesh, watch=keep, quiet=run.quiet)  # fmt: skip
    if int(state.updates) == config.steps:  # else cut off; the same command goes on
        task.write_model(task.with_unet(model, learned(state)), run.out / "model", config.dtype)


if __name__ == "__main__":
    main()
