"""Learn a new word for what a few pictures show.

python train/textual_inversion.py --config configs/textual_inversion.py --data pictures \\
    --out runs/word --set word="<toy>" --set initial=toy

Writes runs/word/learned_embeds.safetensors, for `diffedit edit --embedding`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffedit_jax.bundles import load
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.launch import arguments
from diffedit_jax.training.loop import fit
from diffedit_jax.training.tasks import textual_inversion as task
from diffedit_jax.training.tasks.shared import learned


def main():
    """Encode the pictures, train the rows, write them at every save."""
    run = arguments(__doc__)
    config = run.config
    model, rows = task.with_word(load(config.model), config.word, config.vectors)
    batches = task.inversion_batches(model, config, run.data, rows)

    def keep(_, state):
        task.write_word(run.out / "learned_embeds.safetensors", config.word, learned(state))

    fit(task.inversion_task(model, config, rows), Stepped(batches, run.share), config, run.out,
        mesh=run.mesh, watch=keep, quiet=run.quiet)  # fmt: skip


if __name__ == "__main__":
    main()
