"""The tiny CLIP of the embedded model: image and text towers, contrastive.

Method: Radford et al. 2021. Hardware: 2 CPU cores. Time: about 10 minutes.
Outcome: the right caption among 64 for most pictures; see diffedit_jax/assets/emoji/README.md.
Command: python train/pretrain_clip.py --config configs/pretrain_clip.py --out runs/clip
"""

from ml_collections import ConfigDict

TOWER = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 128,
}

CLIP = {
    "architectures": ["CLIPModel"],
    "model_type": "clip",
    "projection_dim": 128,
    "logit_scale_init_value": 2.6592,
    "text_config": {
        **TOWER,
        "model_type": "clip_text_model",
        "num_hidden_layers": 2,
        "max_position_embeddings": 24,
    },
    "vision_config": {
        **TOWER,
        "model_type": "clip_vision_model",
        "num_hidden_layers": 4,
        "image_size": 64,
        "patch_size": 8,
        "num_channels": 3,
    },
}


def get_config() -> ConfigDict:
    """The run that made diffedit_jax/assets/emoji/clip."""
    return ConfigDict(
        dict(
            network=CLIP,
            seed=5,
            batch=64,
            steps=900,  # the weights that ship are those of step 500
            rate=1e-3,
            schedule="settle",
            warmup=100,
            betas=(0.9, 0.99),
            average=0.999,
            noise=0.15,
            save_every=500,
            log_every=50,
        )
    )
