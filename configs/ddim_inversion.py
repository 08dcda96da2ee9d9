r"""DDIM inversion: encode a picture into noise under its own prompt, sample back with another.

Paper: Song et al. 2021 (2010.02502), section 4.3; the way up without guidance and with the target
label, as null-text inversion and diffusers have it.
Hardware: any; the embedded model on two CPU cores, Stable Diffusion on one GPU or TPU core.
Expected outcome: the prompt's object in the picture's pose; the background drifts, because the way
back is guided and the way up is not. With --guidance 1 and the source prompt: the picture itself.
Command: diffedit edit cat.png --method ddim_inversion --source "a cat on a blue background" \
    --prompt "a dog on a blue background" --out dog.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `ddim_inversion`."""
    return ConfigDict(
        dict(method="ddim_inversion", strength=1.0, steps=50, guidance=7.5, refine=0,
             label="target")
    )  # fmt: skip
