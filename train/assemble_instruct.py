"""Put a trained UNet as emoji-instruct: what it changes of the embedded model, in float16.

python train/assemble_instruct.py --run runs/instruct --out diffedit_jax/assets/emoji-instruct
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from configs import pretrain_unet
from diffedit_jax.checkpoints.load import export
from diffedit_jax.checkpoints.write import whole_folder, write_json, write_safetensors
from diffedit_jax.training import weights
from diffedit_jax.training.launch import start


def main():
    """Write base.json and unet/; the folder must not be there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/instruct"))
    parser.add_argument("--out", type=Path, default=Path("diffedit_jax/assets/emoji-instruct"))
    parser.add_argument("--defaults", default="", help='such as {"guidance": 3.0, "steps": 50}')
    found = parser.parse_args()
    unet = export(weights.load(found.run / "unet.safetensors"))
    with whole_folder(found.out) as folder:
        write_json(folder / "base.json", {"base": "emoji"})
        if found.defaults:
            write_json(folder / "defaults.json", json.loads(found.defaults))
        write_json(folder / "unet" / "config.json", {**pretrain_unet.UNET, "in_channels": 8})
        write_safetensors(
            folder / "unet" / "diffusion_pytorch_model.safetensors",
            {name: np.asarray(x, np.float16) for name, x in unet.items()},
        )


if __name__ == "__main__":
    start(main)
