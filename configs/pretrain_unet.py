"""The UNet and text encoder of the embedded model, trained together on rendered scenes.

Method: Rombach et al. 2022 with velocity prediction (Salimans and Ho 2022). Hardware: 2 CPU cores.
Time: about 75 minutes. Outcome: see diffedit_jax/assets/emoji/README.md.
Command: python train/pretrain_unet.py --config configs/pretrain_unet.py --out runs/unet \\
    --set vae=runs/vae/vae.safetensors
"""

from ml_collections import ConfigDict

UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [64, 96, 128],
    "layers_per_block": 1,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 128,
    "attention_head_dim": 4,
    "use_linear_projection": True,
}

TEXT = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 128,
}

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "clip_sample": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
}


def get_config() -> ConfigDict:
    """The run that made diffedit_jax/assets/emoji/unet and text_encoder."""
    return ConfigDict(
        dict(
            unet=UNET,
            text=TEXT,
            scheduler=SCHEDULER,
            vae="runs/vae/vae.safetensors",
            start="",  # a model to go on from, with its autoencoder; "": random weights
            seed=3,
            pool=12_000,  # scenes encoded before training
            batch=32,
            steps=3600,  # the weights that ship are those of step 3500
            rate=1e-3,
            schedule="settle",
            warmup=200,
            settle=0.45,
            betas=(0.9, 0.99),
            average=0.998,
            drop=0.1,
            focus=0.5,  # from step 1500 on; 0 before
            # From step 2500 on; even before.
            emphasis={"3d render": 1.8, "pixel art": 2.5, "neon sign": 1.3, "pair": 2.0},
            save_every=250,
            log_every=25,
        )
    )
