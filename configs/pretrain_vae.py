"""The autoencoder of the embedded model: 64x64 pictures to 16x16x4 latents.

Method: Rombach et al. 2022, without the adversarial term. Hardware: 2 CPU cores.
Time: about 40 minutes. Outcome: 28.7 dB on unseen scenes.
Command: python train/pretrain_vae.py --config configs/pretrain_vae.py --out runs/vae
"""

from ml_collections import ConfigDict

NETWORK = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [16, 48, 96],
    "layers_per_block": 1,
    "mid_block_add_attention": False,
    "latent_channels": 4,
    "norm_num_groups": 16,
    "act_fn": "silu",
    "sample_size": 64,
    "scaling_factor": 1.0,
}


def get_config() -> ConfigDict:
    """The run that made diffedit_jax/assets/emoji/vae."""
    return ConfigDict(
        dict(
            network=NETWORK,
            compute="bfloat16",
            seed=1,
            schedule="settle",
            warmup=100,  # of the decoder
            betas=(0.9, 0.99),
            average=0.999,
            kl=1e-5,
            logvar_bias=-5.0,
            crops=dict(
                folder="both",
                seed=1,
                batch=16,
                crop=32,
                steps=3300,
                rate=1e-3,
                warmup=100,
                noise_after=150,  # steps before the latent is sampled, or it collapses
            ),
            whole=dict(
                folder="whole",
                seed=4,
                batch=4,
                crop=64,
                steps=1000,
                rate=7e-4,
                warmup=50,
                noise_after=0,
            ),
            decoder_steps=600,  # then the decoder alone on whole pictures
            decoder_batch=4,
            decoder_rate=5e-4,
            save_every=300,
            log_every=50,
        )
    )
