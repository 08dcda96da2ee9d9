"""Make an instruction-following model of a text-to-image model.

python train/instruct_pix2pix.py --config configs/train_instruct_pix2pix.py --out runs/instruct

With --data, on a folder of pairs (see docs/personalisation.md); without, on rendered scenes. Writes
runs/instruct/model, a diffusers folder of the averaged weights.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffedit_jax.training import looks, weights
from diffedit_jax.training.launch import arguments, start
from diffedit_jax.training.products import at_end, at_saves, model_bytes, write_model
from diffedit_jax.training.tasks import instruct_pix2pix as task


def main():
    """Encode the pairs, train, write the model."""
    run = arguments(__doc__)
    config = run.config
    model = task.widened(run.model)
    data, pairs = task.instruct_data(model, config, run.data, run.out, run.share)

    def write(found):
        weights.save(found["unet"], run.out / "unet.safetensors")

    def export(found):
        write_model(task.with_unet(model, found), run.out / "model", config.dtype)

    made, room = task.instruct_task(model, config), model_bytes(model, config.dtype)
    look = looks.of_pairs(model, made, config, pairs)
    state = run.fit(made, data, watch=at_saves(write), look=look, room=room)
    at_end(export, state, config)


if __name__ == "__main__":
    start(main)
