r"""DiffEdit: find what has to change from the contrast of two prompts, and repaint only that.

Paper: Couairon et al. 2023 (2210.11427); masks from 10 noises at half the noise, threshold 0.5; 50
DDIM steps, encoding without a prompt, guidance 7.5 for Stable Diffusion.
Hardware: any; the embedded model on two CPU cores, Stable Diffusion on one GPU or TPU core.
Expected outcome: the prompt's object inside the found mask, the source's own latent outside.
Command: diffedit edit cat.png --method diffedit \
    --source "a cat on a blue background" \
    --prompt "a dog on a blue background" --out dog.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `diffedit`."""
    return ConfigDict(
        dict(
            method="diffedit",
            strength=0.8,
            steps=50,
            guidance=7.5,
            maps=10,
            mask_strength=0.5,
            clip_ratio=3.0,
            threshold=0.5,
            dilate=0,
            blur=0.0,
        )
    )
