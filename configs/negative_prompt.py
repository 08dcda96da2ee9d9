r"""Negative-prompt inversion: the source prompt in the place of the null prompt.

Paper: Miyake et al. 2023 (2305.16807); --set proximal=l0 adds proximal guidance, Han et al. 2024
(2306.05414).
Hardware: any; the embedded model on two CPU cores, Stable Diffusion on one GPU or TPU core.
Expected outcome: nearly null-text inversion's edit at the price of DDIM inversion.
Command: diffedit edit cat.png --method negative_prompt --source "a cat on a blue background" \
    --prompt "a dog on a blue background" --out dog.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `negative_prompt`."""
    return ConfigDict(dict(method="negative_prompt", steps=50, guidance=7.5))
