"""Fine-tune a model on a few pictures of a subject, keeping what it knows of the subject's class.

python train/dreambooth.py --config configs/dreambooth.py --data pictures --out runs/subject \\
    --set kind=dog

Writes runs/subject/model, a diffusers folder.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffedit_jax.training import looks
from diffedit_jax.training.launch import arguments, start
from diffedit_jax.training.products import at_end, model_bytes, write_model
from diffedit_jax.training.tasks import dreambooth as task


def main():
    """Draw the class, encode the pictures, train, write the model."""
    run = arguments(__doc__)
    config = run.config
    model = run.model
    run.say(f"the subject is called: {task.identifier(model, config)}")
    data = task.dreambooth_data(model, config, run.data, run.out, run.share)

    def write(found):
        write_model(task.with_trained(model, found), run.out / "model", config.dtype)

    made, room = task.full_task(model, config), model_bytes(model, config.dtype)
    look = looks.of_prompts(model, made, config, task.prompts(model, config))
    state = run.fit(made, data, room=room, look=look)
    at_end(write, state, config)


if __name__ == "__main__":
    start(main)
