r"""Null-text inversion: null prompts optimised step by step, then another prompt.

Paper: Mokady et al. 2023 (2211.09794); all numbers are those of the official notebook.
Hardware: Stable Diffusion: one GPU or TPU core with 16 GB, float32, about a minute per picture; the
embedded model: two CPU cores, minutes.
Expected outcome: with the source prompt the picture itself, at full guidance; with another prompt
an edit that keeps more of the picture than DDIM inversion does; --set proximal=l0 or l1 drops
what changes little.
Command: diffedit edit cat.png --method null_text --source "a cat on a blue background" \
    --prompt "a dog on a blue background" --out dog.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `null_text`."""
    return ConfigDict(
        dict(method="null_text", steps=50, guidance=7.5, inner=10, tolerance=1e-5, rate=1e-2)
    )
