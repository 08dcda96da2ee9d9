"""Textual inversion on the embedded model: a word for an object from four pictures.

Method: Gal et al. 2022 (2208.01618). Hardware: 2 CPU cores. Time: minutes. Expected outcome: the
object's colour and outline; the object itself in a fifth to a quarter of new sentences, as
docs/personalisation.md has it.
Command: python train/textual_inversion.py --config configs/textual_inversion.py --data pictures \\
    --out runs/word --set word="<toy>" --set initial=panda

Stable Diffusion, as diffusers' README has it: model=..., templates=object, vectors=1, initial=(one
word), batch=4, rate=2e-3 (5e-4 per picture), steps=3000, flip=0.5, decay=0.01, focus=-1. Unlike the
scripts, which squash a picture into a square unless asked for its middle, this takes the middle.
On an accelerator compute=bfloat16.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Settings of train/textual_inversion.py."""
    return ConfigDict(
        dict(
            model="emoji",
            word="<new>",
            initial="",  # words that the vectors start from, in turn; "": random
            vectors=2,
            progressive=0,  # steps after which one more vector takes part; 0: all at once
            compat="",  # "official": the start of the original code
            templates="emoji",  # object, style, "a {}|my {}"; .txt files go first
            flip=0.0,  # chance of a mirrored picture
            skip_broken=False,
            crop="middle",  # or random, with cache_latents=False: the square that is used
            cache_latents=True,  # False: pictures are read anew and encoded in the step
            seed=0,
            batch=8,
            steps=400,
            rate=2e-2,
            clip=0.0,
            decay=0.0,
            focus=0.5,
            min_snr=0.0,
            offset=0.0,
            save_every=100,
            log_every=20,
        )
    )
