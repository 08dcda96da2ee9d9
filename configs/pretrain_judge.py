"""The judge of the emoji world: a classifier of renders, for measuring generated pictures.

Method: cross entropy per attribute on noised and blurred renders (docs/embedded_model.md).

Hardware: 2 CPU cores. Time: about 6 minutes. Outcome: at least 0.98 on clean held-out renders.
Command: python train/pretrain_judge.py --config configs/pretrain_judge.py --out runs/judge
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The run that made diffedit_jax/assets/emoji/judge."""
    return ConfigDict(
        dict(
            seed=11,
            batch=64,
            steps=1200,
            rate=2e-3,
            schedule="settle",
            warmup=100,
            betas=(0.9, 0.99),
            average=0.999,
            noise=0.15,
            save_every=500,
            log_every=50,
        )
    )
