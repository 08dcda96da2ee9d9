"""The embedded model learns to follow instructions, on rendered scenes before and after an edit.

Method: Brooks et al. 2023 (2211.09800), sections 3.2 and 3.2.1: 8 channels, dropout 5 % each.
Hardware: 2 CPU cores. Time: an hour or two. Expected outcome: "turn the cat into a dog", "make the
background blue" done, the rest kept; rates by `diffedit bench quality`.
Command: python train/instruct_pix2pix.py --config configs/train_instruct_pix2pix.py \\
    --out runs/instruct
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Settings of train/instruct_pix2pix.py.

    For Stable Diffusion 1.5, the published ones: model=..., --data, trained=unet/.*, batch=256,
    accumulate=4 (1024 in all), rate=1e-4, schedule=constant, betas=(0.9, 0.999), clip=0,
    average=0.9999, focus=-1, flip=0.5; 10,000 updates in the paper, 22,000 of the released weights.
    On an accelerator compute=bfloat16.
    Seed, decay of weights (0.01), dropout and the average's warm-up are the published ones already.
    What else differs is in docs/personalisation.md: pictures of 256 pixels, samples of latents.
    """
    return ConfigDict(
        dict(
            model="emoji",
            pairs=20_000,  # rendered, where no --data is given
            skip_broken=False,  # leave out pictures of --data that cannot be read
            flip=0.0,  # chance of a mirrored pair
            cache_latents=True,  # False: pictures are read anew and encoded in the step
            cache_texts=0,  # states of so many instructions are kept, not made in every step
            seed=23,
            batch=32,
            steps=4500,
            rate=5e-4,
            schedule="settle",
            warmup=100,
            settle=0.6,
            betas=(0.9, 0.99),
            average=0.998,
            averaging="litema",
            drop=0.05,
            # The middle's resnets stay those of the embedded model, which keeps the file small.
            trained="unet/(?!mid_block/resnets).*",
            focus=0.3,
            min_snr=0.0,
            offset=0.0,
            dtype="float16",  # of the files
            save_every=250,
            log_every=25,
        )
    )
