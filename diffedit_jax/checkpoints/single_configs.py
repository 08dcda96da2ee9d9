"""Configs for weights that came without any: read off shapes, with a yaml's help.

Written in the words of diffusers and transformers, so that the same dict builds our modules and
goes into a config.json. Source: the published configs of Stable Diffusion 1, 2 and XL.
"""

from diffedit_jax.checkpoints.read import Weights
from diffedit_jax.checkpoints.tables.clip import layer_count
from diffedit_jax.checkpoints.tables.unet import UNetShape
from diffedit_jax.checkpoints.yaml_fields import last

SD1_CONTEXT = 768
SD1_HEADS = 8
HEAD_WIDTH = 64  # of every Stable Diffusion after the first, and of every CLIP text tower
SCALING = {False: 0.18215, True: 0.13025}  # latents of SD 1 and 2; of SDXL


def unet_config(weights: Weights, shape: UNetShape, fields: dict) -> dict:
    """The UNet2DConditionModel config of canonical UNet weights."""
    levels = range(len(shape.depths))
    widths = [len(weights[f"down_blocks.{n}.resnets.0.conv1.bias"]) for n in levels]
    attended = [n for n in levels if shape.depths[n]]
    place = f"down_blocks.{attended[0]}.attentions.0" if attended else "mid_block.attentions.0"
    context = weights[f"{place}.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in shape.depths]
    up = ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in shape.depths[::-1]]
    config = {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": _heads(widths, context, fields),
        "block_out_channels": widths,
        "center_input_sample": False,
        "cross_attention_dim": context,
        "down_block_types": down,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": weights["conv_in.weight"].shape[1],
        "layers_per_block": shape.layers,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "out_channels": weights["conv_out.weight"].shape[0],
        "sample_size": {1024: 64, 2048: 128}.get(context, 64),
        "up_block_types": up,
        "use_linear_projection": weights[f"{place}.proj_in.weight"].ndim == 2,
    }
    if max(shape.depths) > 1:
        config["transformer_layers_per_block"] = [max(depth, 1) for depth in shape.depths]
    return config | _added(weights)


def _heads(widths: list[int], context: int, fields: dict) -> int | list[int]:
    """diffusers' `attention_head_dim`, which is the NUMBER of heads, per level.

    The yaml says either num_heads or num_head_channels; without it: 8 heads for a context of
    768, one head per 64 channels otherwise.
    """
    if heads := last(fields, "unet_config.params.num_heads"):
        return heads if heads > 0 else _per_width(widths, fields)
    if last(fields, "unet_config.params.num_head_channels"):
        return _per_width(widths, fields)
    return SD1_HEADS if context == SD1_CONTEXT else _per_width(widths, {})


def _per_width(widths: list[int], fields: dict) -> list[int]:
    channels = last(fields, "unet_config.params.num_head_channels", HEAD_WIDTH)
    return [max(width // channels, 1) for width in widths]


def _added(weights: Weights) -> dict:
    """SDXL's extra embedding of pooled text and sizes."""
    if "add_embedding.linear_1.weight" not in weights:
        return {}
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": weights["add_embedding.linear_1.weight"].shape[1],
    }


def vae_config(weights: Weights, levels: int, layers: int, fields: dict, *, xl: bool) -> dict:
    """The AutoencoderKL config of canonical VAE weights."""
    widths = [len(weights[f"encoder.down_blocks.{n}.resnets.0.conv1.bias"]) for n in range(levels)]
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "force_upcast": xl,
        "in_channels": weights["encoder.conv_in.weight"].shape[1],
        "latent_channels": weights["encoder.conv_out.weight"].shape[0] // 2,
        "layers_per_block": layers,
        "norm_num_groups": 32,
        "out_channels": weights["encoder.conv_in.weight"].shape[1],
        "sample_size": 1024 if xl else 512,
        "scaling_factor": last(fields, "model.params.scale_factor", SCALING[xl]),
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def text_config(weights: Weights, activation: str) -> dict:
    """The CLIPTextConfig of canonical text encoder weights."""
    width = len(weights["final_layer_norm.bias"])
    projected = weights.get("text_projection.weight")
    return {
        "architectures": ["CLIPTextModel" + ("" if projected is None else "WithProjection")],
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "hidden_act": activation,
        "hidden_size": width,
        "intermediate_size": len(weights["encoder.layers.0.mlp.fc1.bias"]),
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": len(weights["embeddings.position_embedding.weight"]),
        "model_type": "clip_text_model",
        "num_attention_heads": max(width // HEAD_WIDTH, 1),
        "num_hidden_layers": layer_count(weights),
        "pad_token_id": 1,
        "projection_dim": width if projected is None else projected.shape[0],
        "vocab_size": len(weights["embeddings.token_embedding.weight"]),
    }


def scheduler_config(
    prediction_type: str, fields: dict, *, xl: bool, instruct: bool = False
) -> dict:
    """The scheduler config that the published folders of these models carry.

    `instruct`: InstructPix2Pix, whose own code samples by Euler ancestral.
    """
    other = "EulerAncestralDiscreteScheduler" if instruct else "PNDMScheduler"
    config = {
        "_class_name": "EulerDiscreteScheduler" if xl else other,
        "beta_end": last(fields, "model.params.linear_end", 0.012),
        "beta_schedule": "scaled_linear",
        "beta_start": last(fields, "model.params.linear_start", 0.00085),
        "num_train_timesteps": last(fields, "model.params.timesteps", 1000),
        "prediction_type": prediction_type,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "trained_betas": None,
    }
    if instruct:
        return config | {"timestep_spacing": "linspace"}
    if not xl:
        config |= {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}
    return config
