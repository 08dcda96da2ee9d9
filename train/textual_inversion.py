"""Learn a new word for what a few pictures show.

python train/textual_inversion.py --config configs/textual_inversion.py --data pictures \\
    --out runs/word --set word="<toy>" --set initial=toy

Writes runs/word/learned_embeds.safetensors, for `diffedit edit --embedding`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffedit_jax.training import looks
from diffedit_jax.training.launch import arguments, start
from diffedit_jax.training.products import at_saves
from diffedit_jax.training.tasks import textual_inversion as task


def main():
    """Encode the pictures, train the rows, write them at every save."""
    run = arguments(__doc__)
    config = run.config
    model, rows = task.with_word(run.model, config.word, config.vectors)
    data = task.inversion_data(model, config, run.data, rows, run.share)

    def write(found):
        task.write_word(run.out / "learned_embeds.safetensors", config.word, found)

    made = task.inversion_task(model, config, rows)
    look = looks.of_prompts(model, made, config, task.prompts(config))
    run.fit(made, data, watch=at_saves(write), look=look)


if __name__ == "__main__":
    start(main)
