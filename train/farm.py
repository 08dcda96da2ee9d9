"""Learn many concepts at once: a word or a LoRA for each folder of pictures, in one program.

python train/farm.py --config configs/textual_inversion.py --data concepts --out runs/farm
python train/farm.py --config configs/dreambooth_lora.py --data concepts --out runs/farm \\
    --set kind=animal

`concepts` holds a folder of pictures for each concept; a file concept.json in it changes settings
for that concept alone, such as {"initial": "panda"} or {"kind": "panda"}. Each concept becomes one
safetensors file of its folder's name, for `diffedit edit --embedding` or `--lora`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffedit_jax.training.farm import train_farm
from diffedit_jax.training.launch import arguments, start
from diffedit_jax.training.tasks import concepts as task


def main():
    """Encode the pictures of all concepts, train them together, write their files at every save."""
    run = arguments(__doc__)
    concepts = task.concepts_of(run.data, run.config)
    lessons = task.lessons(run.model, concepts, run.out)
    names = [each.name for each in concepts]
    for name, called in zip(names, lessons.called, strict=True):
        run.say(f"{name} is called: {called}")
    watch = task.write_all(lessons, names, run.out)
    train_farm(lessons.tasks, lessons.data, run.config, run.out, mesh=run.mesh, watch=watch,
               about=run.about | task.about(concepts), quiet=run.quiet)  # fmt: skip


if __name__ == "__main__":
    start(main)
