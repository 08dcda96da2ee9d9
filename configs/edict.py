r"""EDICT: a picture encoded so that the same prompt gives it back exactly, then another prompt.

Paper: Wallace et al. 2023 (2211.12446); steps, strength, guidance and mix are those of the authors'
code.
Hardware: any; the embedded model on two CPU cores, Stable Diffusion on one GPU or TPU core. The
pair is kept in float64, which is small beside the network.
Expected outcome: the prompt's object in the picture's layout, with a background close to the
picture's; with the source prompt, the picture as the autoencoder gives it back.
Command: diffedit edit cat.png --method edict --source "a cat on a blue background" \
    --prompt "a dog on a blue background" --out dog.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `edict`."""
    return ConfigDict(dict(method="edict", strength=0.8, steps=50, guidance=3.0, leapfrog=True))
