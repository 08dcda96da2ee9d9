"""InST on the embedded model: the style of one picture, for `diffedit edit --method inst`.

Method: Zhang et al. 2023 (2211.13203). Hardware: 2 CPU cores. Time: minutes. Expected outcome: a
word for the picture's look; rates in docs/inst.md.
Command: python train/inst.py --config configs/train_inst.py --data painting --out runs/style

Stable Diffusion 1.4, as the original: model=..., tower=(openai/clip-vit-large-patch14), batch=1,
steps=6100, rate=1e-4, decay=0.01, focus=-1, seed=23; on an accelerator compute=bfloat16.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Settings of train/inst.py."""
    return ConfigDict(
        dict(
            model="emoji",
            tower="emoji",  # whose image tower reads the picture
            tokens="pooled",  # or patches
            compat="",  # "official": pictures reach the tower as in the original code
            word="*",  # one token of the model
            templates="{}",  # the word alone, as the original; "a {} in * style" works too
            heads=8,
            inner=512,
            dropout=0.05,
            flip=0.5,  # chance of a mirrored picture
            skip_broken=False,  # leave out pictures that cannot be read
            seed=0,
            batch=8,
            steps=240,
            rate=1e-3,
            clip=0.0,
            decay=1e-2,
            focus=0.5,
            min_snr=0.0,
            offset=0.0,
            save_every=60,
            log_every=20,
        )
    )
