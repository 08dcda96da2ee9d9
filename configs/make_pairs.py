"""Pairs of pictures for InstructPix2Pix, drawn with shared self attention and filtered by CLIP.

Method: Brooks et al. 2023 (2211.09800), section 3.1. Hardware: any. Time: `samples` times
`steps` answers for four rows per prompt. Outcome: a folder that train/instruct_pix2pix.py takes
with --data.
Command: python train/make_pairs.py --config configs/make_pairs.py --data prompts.jsonl --out pairs

The paper, with Stable Diffusion and ViT-L/14: judge=(its folder), samples=100, keep=4, steps=100,
guidance=(7.5, 15.0), share=(0.1, 0.9), text=0.2, direction=0.2, image=0.75.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Settings of train/make_pairs.py."""
    return ConfigDict(
        dict(
            model="emoji",
            judge="emoji",  # the CLIP that filters: emoji, or a CLIPModel folder
            samples=16,
            keep=4,
            steps=25,
            guidance=(3.0, 6.0),
            share=(0.1, 0.9),
            text=0.2,
            direction=0.2,
            image=0.5,
            seed=0,
        )
    )
