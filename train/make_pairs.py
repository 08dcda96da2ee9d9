"""Draw pairs of pictures for train/instruct_pix2pix.py, from a file of prompts.

python train/make_pairs.py --config configs/make_pairs.py --data prompts.jsonl --out pairs

A line of prompts.jsonl: {"caption": "a cat", "edit": "turn the cat into a dog", "output": "a dog"}.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffedit_jax.bundles import load
from diffedit_jax.errors import UserError
from diffedit_jax.metrics.clip import load_clip
from diffedit_jax.training.launch import arguments, start
from diffedit_jax.training.pair_maker import make_pairs
from diffedit_jax.training.products import produce


def main():
    """Draw, filter, write; a run that was cut off goes on."""
    run = arguments(__doc__)
    config = run.config
    if run.data is None:
        raise UserError("name a file of prompts with --data")
    model, clip = load(config.model), load_clip(config.judge)

    def make():
        for line in make_pairs(model, clip, run.data, run.out, config):
            run.say(line)

    produce(make)


if __name__ == "__main__":
    start(main)
