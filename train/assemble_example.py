"""Put a trained Paint by Example as emoji-example: what it changes of the embedded model.

python train/assemble_example.py --run runs/example --out diffedit_jax/assets/emoji-example
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from diffedit_jax.bundles import load
from diffedit_jax.checkpoints.load import export
from diffedit_jax.checkpoints.tables.exemplar import classic
from diffedit_jax.checkpoints.write import whole_folder, write_json, write_safetensors
from diffedit_jax.training import weights
from diffedit_jax.training.launch import start
from diffedit_jax.training.tasks import paint_by_example as task

FILES = {"unet": "diffusion_pytorch_model.safetensors", "image_encoder": "model.safetensors"}


def main():
    """Write base.json, unet/ and image_encoder/; the folder must not be there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/example"))
    parser.add_argument("--out", type=Path, default=Path("diffedit_jax/assets/emoji-example"))
    parser.add_argument("--defaults", default="", help='such as {"guidance": 2.0, "steps": 50}')
    found = parser.parse_args()
    trained = weights.load(found.run / "trained.safetensors")
    model = task.with_trained(task.by_example(load("emoji"), "emoji", 0), trained)
    parts = {"unet": export(trained["unet"]), "image_encoder": export(model.exemplar.params)}
    parts["image_encoder"] = classic(parts["image_encoder"])
    with whole_folder(found.out) as folder:
        write_json(folder / "base.json", {"base": "emoji"})
        if found.defaults:
            write_json(folder / "defaults.json", json.loads(found.defaults))
        for name, tensors in parts.items():
            write_json(folder / name / "config.json", model.configs[name])
            half = {key: np.asarray(x, np.float16) for key, x in tensors.items()}
            write_safetensors(folder / name / FILES[name], half)


if __name__ == "__main__":
    start(main)
