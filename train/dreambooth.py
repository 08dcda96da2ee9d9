"""Fine-tune a model on a few pictures of a subject, keeping what it knows of the subject's class.

python train/dreambooth.py --config configs/dreambooth.py --data pictures --out runs/subject \\
    --set kind=dog

Writes runs/subject/model, a diffusers folder.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffedit_jax.bundles import load
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.launch import arguments
from diffedit_jax.training.loop import fit
from diffedit_jax.training.tasks import dreambooth as task
from diffedit_jax.training.tasks.instruct_pix2pix import write_model
from diffedit_jax.training.tasks.shared import learned


def main():
    """Draw the class, encode the pictures, train, write the model."""
    run = arguments(__doc__)
    config = run.config
    model = load(config.model)
    print(f"the subject is called: {task.identifier(model, config)}")
    batches = task.dreambooth_batches(model, config, run.data, run.out)
    state = fit(task.full_task(model, config), Stepped(batches, run.share), config, run.out,
                mesh=run.mesh, quiet=run.quiet)  # fmt: skip
    if int(state.updates) == config.steps:  # else cut off; the same command goes on
        write_model(task.with_trained(model, learned(state)), run.out / "model", config.dtype)


if __name__ == "__main__":
    main()
