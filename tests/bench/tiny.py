"""An autoencoder that costs nothing, for models of random weights."""

from diffedit_jax.bench import random_model

TINY_VAE = {
    **random_model.VAE,
    "block_out_channels": [16, 32],
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "sample_size": 32,
}
