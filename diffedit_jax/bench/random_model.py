"""A Stable Diffusion 1.5 of random weights: the shapes of the real one, for measuring time.

Only the vocabulary is smaller (the embedded model's tokenizer goes with it); a text is encoded
once per edit and weighs nothing beside the UNet.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .unet_entry import LARGE, random_weights, unet_weights

FOLDER = "sd15"  # the name under which `bench speed --model` knows it
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "scaling_factor": 0.18215,
    "sample_size": 512,
}
TEXT = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "clip_sample": False,
    "steps_offset": 1,
}


def write_random_model(
    folder: Path, channels: int = 4, unet: dict = LARGE, vae: dict = VAE, vision: dict = VISION
) -> None:
    """Writes a diffusers folder of random float16 weights (2 GB at full size).

    Args:
      channels: input channels of the UNet: 4; 8 for InstructPix2Pix; 9 for Paint by Example, which
        has an encoder of example pictures in place of the text encoder.
      unet, vae, vision: configs; those of Stable Diffusion 1.5 and of CLIP ViT-L/14 if not given.
    """
    import jax.numpy as jnp

    from ..checkpoints.export import write_folder
    from ..checkpoints.load import export
    from ..checkpoints.parts import Parts
    from ..models import AutoencoderKL, UNet

    unet = {**unet, "in_channels": channels, "out_channels": 4}
    coder = AutoencoderKL.from_config(vae)
    told, config, weights = _told(channels, unet["cross_attention_dim"], vision)
    parts = Parts(where="random weights")
    parts.configs = {"unet": unet, "vae": vae, told: config, "scheduler": SCHEDULER}
    parts.weights = {
        "unet": export(unet_weights(UNet.from_config(unet), unet)),
        "vae": export(random_weights(coder, (jnp.zeros((1, 64, 64, 3)),))),
        told: export(weights),
    }
    write_folder(parts, folder, _tokenizer, dtype="float16")


def _told(channels: int, width: int, vision: dict) -> tuple[str, dict, dict]:
    """(name, config, weights) of the network that says what to draw."""
    import jax.numpy as jnp

    from ..models import CLIPText, Exemplar

    if channels == 9:
        config = {**vision, "projection_dim": width}
        module = Exemplar.from_config(config)
        side = module.image_size
        return "image_encoder", config, random_weights(module, (jnp.zeros((1, side, side, 3)),))
    heads = {"num_attention_heads": max(width // 64, 1)}
    config = {**TEXT, **_special_ids(), **heads, "hidden_size": width}
    weights = random_weights(CLIPText.from_config(config), (jnp.zeros((1, 77), jnp.int32),))
    return "text_encoder", config, weights


def _special_ids() -> dict[str, int]:
    from ..scenes import captions, tokenizer

    size = len(tokenizer.build_vocabulary(tokenizer.build_merges(captions.words())))
    last = {name: size - 1 for name in ("eos_token_id", "pad_token_id")}
    return {"vocab_size": size, "bos_token_id": size - 2, **last}


def _tokenizer(_: int, folder: Path) -> None:
    from ..bundles.loading import ASSETS

    shutil.copytree(ASSETS / "emoji" / "tokenizer", folder)
