r"""SDEdit: noise a picture half-way and denoise it with another prompt.

Paper: Meng et al. 2022 (2108.01073); the paper recommends strengths of 0.3 to 0.6 for strokes and
composites, diffusers' latent form uses 0.8.
Hardware: any; the embedded model on two CPU cores, Stable Diffusion on one GPU or TPU core.
Expected outcome: the prompt's object in the picture's colours and layout.
Command: diffedit edit cat.png --method sdedit \
    --strength 0.8 --prompt "a dog on a blue background" --out dog.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `sdedit`."""
    return ConfigDict(
        dict(method="sdedit", strength=0.8, steps=50, guidance=7.5, rescale=0.0, solver="ddim")
    )
