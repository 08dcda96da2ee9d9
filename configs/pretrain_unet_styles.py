"""A second run of the embedded model's UNet and text encoder, for the styles it did not follow.

Method: as configs/pretrain_unet.py, from the weights of that run, with styled scenes drawn more
often. Hardware: 2 CPU cores. Time: about an hour. Outcome: see diffedit_jax/assets/emoji/README.md.
Command: python train/pretrain_unet.py --config configs/pretrain_unet_styles.py --out runs/unet
"""

from ml_collections import ConfigDict

from configs import pretrain_unet


def get_config() -> ConfigDict:
    """The run that made the embedded UNet and text encoder from their first version."""
    config = pretrain_unet.get_config()
    config.update(
        dict(
            start="emoji",
            seed=11,
            pool=20_000,
            steps=3600,
            rate=6e-4,
            warmup=100,
            settle=0.9,
            emphasis={"3d render": 3.0, "pixel art": 4.0, "neon sign": 1.5, "pair": 2.0},
        )
    )
    return config
