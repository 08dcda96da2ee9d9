"""The yaml beside a single file: what its weights cannot say, in the words of LDM."""

from collections.abc import Mapping

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def yaml_text(configs: Mapping[str, dict]) -> str:
    """The LDM yaml of a model with these (diffusers) configs."""
    unet, vae, scheduler = configs["unet"], configs["vae"], configs["scheduler"]
    lines = [
        "model:",
        "  target: ldm.models.diffusion.ddpm.LatentDiffusion",
        "  params:",
        f'    parameterization: "{PREDICTIONS[scheduler.get("prediction_type", "epsilon")]}"',
        f"    linear_start: {scheduler.get('beta_start', 0.0001)}",
        f"    linear_end: {scheduler.get('beta_end', 0.02)}",
        f"    timesteps: {scheduler.get('num_train_timesteps', 1000)}",
        f"    channels: {vae.get('latent_channels', 4)}",
        f"    scale_factor: {vae.get('scaling_factor', 0.18215)}",
        "    unet_config:",
        "      target: ldm.modules.diffusionmodules.openaimodel.UNetModel",
        "      params:",
        *(f"        {line}" for line in _unet_lines(unet)),
        "    first_stage_config:",
        "      target: ldm.models.autoencoder.AutoencoderKL",
        "      params:",
        f"        embed_dim: {vae.get('latent_channels', 4)}",
        "        ddconfig:",
        *(f"          {line}" for line in _vae_lines(vae)),
        "    cond_stage_config:",
        f"      target: ldm.modules.encoders.modules.{_condition_class(configs)}",
    ]
    return "\n".join(lines) + "\n"


def _unet_lines(unet: Mapping) -> list[str]:
    widths = unet["block_out_channels"]
    attended = [2**i for i, kind in enumerate(unet["down_block_types"]) if kind.startswith("Cross")]
    return [
        f"in_channels: {unet.get('in_channels', 4)}",
        f"out_channels: {unet.get('out_channels', 4)}",
        f"model_channels: {widths[0]}",
        f"attention_resolutions: {attended}",
        f"num_res_blocks: {unet.get('layers_per_block', 2)}",
        f"channel_mult: {[width // widths[0] for width in widths]}",
        _heads_line(unet.get("attention_head_dim", 8), widths),
        f"use_linear_in_transformer: {unet.get('use_linear_projection', False)}",
        "use_spatial_transformer: True",
        f"context_dim: {unet.get('cross_attention_dim', 1280)}",
    ]


def _heads_line(heads, widths) -> str:
    """diffusers' `attention_head_dim` is the number of heads, one or one per level."""
    if isinstance(heads, int):
        return f"num_heads: {heads}"
    return f"num_head_channels: {widths[0] // heads[0]}"


def _vae_lines(vae: Mapping) -> list[str]:
    widths = vae["block_out_channels"]
    return [
        f"z_channels: {vae.get('latent_channels', 4)}",
        f"in_channels: {vae.get('in_channels', 3)}",
        f"out_ch: {vae.get('out_channels', 3)}",
        f"ch: {widths[0]}",
        f"ch_mult: {[width // widths[0] for width in widths]}",
        f"num_res_blocks: {vae.get('layers_per_block', 1)}",
    ]


def _condition_class(configs: Mapping) -> str:
    if "text_encoder" not in configs:
        return "FrozenCLIPImageEmbedder"
    quick = configs["text_encoder"].get("hidden_act", "quick_gelu") == "quick_gelu"
    return "FrozenCLIPEmbedder" if quick else "FrozenOpenCLIPEmbedder"
