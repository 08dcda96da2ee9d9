"""Make a model that paints by example of a text-to-image model.

python train/paint_by_example.py --config configs/train_paint_by_example.py --out runs/example

With --data, on a folder of pictures with boxes (see docs/personalisation.md); without, on rendered
scenes. Writes runs/example/model, a diffusers folder of the averaged weights.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffedit_jax.training import looks, weights
from diffedit_jax.training.launch import arguments, start
from diffedit_jax.training.products import at_end, at_saves, model_bytes, write_model
from diffedit_jax.training.tasks import paint_by_example as task


def main():
    """Encode the examples, train, write the model."""
    run = arguments(__doc__)
    config = run.config
    model = task.by_example(run.model, config.tower, config.seed)
    data, examples = task.example_data(model, config, run.data, run.out, run.share)

    def write(found):
        weights.save(found, run.out / "trained.safetensors")

    def export(found):
        write_model(task.with_trained(model, found), run.out / "model", config.dtype)

    made, room = task.example_task(model, config), model_bytes(model, config.dtype)
    look = looks.of_examples(model, made, config, examples)
    state = run.fit(made, data, watch=at_saves(write), look=look, room=room)
    at_end(export, state, config)


if __name__ == "__main__":
    start(main)
