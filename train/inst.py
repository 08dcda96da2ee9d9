"""Learn the style of a painting: a module that says its word from the painting itself.

python train/inst.py --config configs/train_inst.py --data painting --out runs/style

`painting` is a folder with one picture, or a few of one style. Writes
runs/style/style.safetensors, for `diffedit edit --method inst --style`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffedit_jax.training import looks
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.launch import arguments, start
from diffedit_jax.training.products import at_saves
from diffedit_jax.training.tasks import inst as task


def main():
    """Read the pictures, train the module, write it at every save."""
    run = arguments(__doc__)
    config = run.config
    model = run.model
    shown = task.paintings(model, config, run.data)
    style = task.fresh_style(model, config, shown)
    data = Stepped(task.style_batches(model, config, shown), run.share)

    def write(found):
        task.write_style(run.out / "style.safetensors", style, found, shown)

    made, now = task.style_task(model, config, style), task.styled(style, shown)
    look = looks.of_prompts(model, made, config, task.prompts(config), now)
    run.fit(made, data, watch=at_saves(write), look=look)


if __name__ == "__main__":
    start(main)
