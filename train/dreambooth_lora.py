"""DreamBooth by low-rank changes (LoRA): a file of a few megabytes instead of a whole model.

python train/dreambooth_lora.py --config configs/dreambooth_lora.py --data pictures \\
    --out runs/subject --set kind=dog

Writes runs/subject/lora.safetensors, for `diffedit edit --lora`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffedit_jax.training import looks
from diffedit_jax.training.launch import arguments, start
from diffedit_jax.training.products import at_saves
from diffedit_jax.training.tasks import dreambooth as task


def main():
    """Draw the class, encode the pictures, train, write the LoRA at every save."""
    run = arguments(__doc__)
    config = run.config
    model = run.model
    run.say(f"the subject is called: {task.identifier(model, config)}")
    data = task.dreambooth_data(model, config, run.data, run.out, run.share)

    def write(found):
        path = run.out / "lora.safetensors"
        task.write_low_rank(path, task.lora(config), found, config.layout)

    made = task.lora_task(model, config)
    look = looks.of_prompts(model, made, config, task.prompts(model, config))
    run.fit(made, data, watch=at_saves(write), look=look)


if __name__ == "__main__":
    start(main)
