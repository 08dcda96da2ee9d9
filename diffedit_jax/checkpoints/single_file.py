"""One file that holds a whole model: split it, tell its kind from shapes, derive the configs.

Source: CompVis/stable-diffusion, Stability-AI/stablediffusion and generative-models for the
prefixes; ldm/modules/ema.py for the flattened names of the averaged copy.
"""

import re
from pathlib import Path

from diffedit_jax.checkpoints.parts import Parts
from diffedit_jax.checkpoints.read import Weights, read
from diffedit_jax.checkpoints.single_configs import (
    scheduler_config,
    text_config,
    unet_config,
    vae_config,
)
from diffedit_jax.checkpoints.tables import clip, exemplar, unet, vae
from diffedit_jax.checkpoints.tables.table import substitute
from diffedit_jax.checkpoints.yaml_fields import last, read_yaml_fields
from diffedit_jax.errors import UserError

UNET = "model.diffusion_model."
PREFIXES = {
    UNET: "unet",
    "first_stage_model.": "vae",
    "vae.": "vae",
    "cond_stage_model.transformer.": "text_encoder",
    "cond_stage_model.model.": "text_encoder/open",
    "conditioner.embedders.0.transformer.": "text_encoder",
    "conditioner.embedders.0.model.": "text_encoder_2/open",
    "conditioner.embedders.1.model.": "text_encoder_2/open",
}
# Left out on purpose: tables of the noise schedule, bookkeeping of training, and the marks
# v_pred and ztsnr, which are read elsewhere.
IGNORED = tuple(
    re.compile(pattern)
    for pattern in (
        r"betas|lvlb_weights|logvar|scale_factor|global_step",
        r"(alphas_cumprod|alphas_cumprod_prev|sqrt_alphas_cumprod)",
        r"(sqrt_one_minus|log_one_minus|sqrt_recip|sqrt_recipm1)_alphas_cumprod",
        r"posterior_(variance|log_variance_clipped|mean_coef1|mean_coef2)",
        r"denoiser\.sigmas|v_pred|ztsnr",
        r"model_ema\.(decay|num_updates)",
        r"first_stage_model\.loss\..*",
        r"(cond_stage_model|conditioner\.embedders\.\d)\.logit_scale",
    )
)

OTHER_KINDS = (
    (
        r".*lora_(up|down|A|B)\b|.*\.lora\.|lora_(unet|te)",
        "a LoRA, which changes a model; load that",
    ),
    (r"emb_params$|clip_[lg]$", "a learned word (textual inversion), not a model"),
    (r"control_model\.|controlnet_", "a ControlNet, not a model of its own"),
    (
        r"(down_blocks|up_blocks|encoder|decoder|text_model|embeddings)\.",
        "one component of a diffusers folder; name the folder that holds model_index.json",
    ),
    (r"input_blocks\.", "a bare UNet (guided-diffusion layout), not a Stable Diffusion file"),
)


def read_single_file(
    path: str | Path, *, prediction_type: str | None = None, ema: bool = True
) -> Parts:
    """Reads an LDM-style single file: Stable Diffusion 1, 2, XL, their 8- and 9-channel kin.

    `prediction_type` says what no weight can: "epsilon" or "v_prediction"; otherwise the yaml
    of the same name decides, otherwise epsilon is assumed. `ema` takes the averaged copy of the
    UNet where the file has one.

    Raises: UserError naming every key that belongs to no known part.
    """
    path = Path(path)
    weights = read(path)
    groups, unknown = _grouped(_averaged(weights, ema, path))
    if unknown:
        raise UserError(_strange(unknown, path, whole="unet" in groups))
    if "unet" not in groups:
        raise UserError(f"{path} has no '{UNET}' tensors: it is not a Stable Diffusion file")
    fields = read_yaml_fields(path.with_suffix(".yaml")) if _has_yaml(path) else {}
    parts = Parts(where=str(path))
    try:
        _add_unet(parts, groups["unet"], fields, path)
        _add_vae(parts, groups.get("vae"), fields, path)
        _add_conditioners(parts, groups, path)
    except KeyError as error:
        raise UserError(f"{path} lacks the tensor {error}, which tells its shape") from None
    except UserError:
        raise
    except (ValueError, IndexError, TypeError) as error:
        raise UserError(f"{path} has tensors or a yaml that fit no model: {error}") from None
    marked = "v_prediction" if "v_pred" in weights else None
    kind = _prediction(parts, prediction_type or marked, fields, path)
    instruct = parts.configs["unet"]["in_channels"] == 8
    xl = "text_encoder_2" in parts.weights
    scheduler = scheduler_config(kind, fields, xl=xl, instruct=instruct and not xl)
    parts.configs["scheduler"] = scheduler | {"rescale_betas_zero_snr": "ztsnr" in weights}
    return parts


def _strange(unknown: list[str], path: Path, whole: bool) -> str:
    """What to say of keys that belong to no known part, and of well-known files of other kinds."""
    for pattern, kind in OTHER_KINDS:
        if not whole and any(re.match(pattern, key) for key in unknown):
            return f"{path} is {kind}"
    listed = ", ".join(sorted(unknown)[:20])
    return f"{path}: {len(unknown)} tensors of no known part of a model: {listed}"


def _has_yaml(path: Path) -> bool:
    return path.with_suffix(".yaml").is_file()


def _grouped(weights: Weights) -> tuple[dict[str, Weights], list[str]]:
    groups: dict[str, Weights] = {}
    unknown = []
    for key, array in weights.items():
        prefix = next((p for p in PREFIXES if key.startswith(p)), None)
        if any(pattern.fullmatch(key) for pattern in IGNORED):
            continue
        if exemplar.ORIGINAL.match(key):
            groups.setdefault("image_encoder", {})[key] = array
        elif prefix is None:
            unknown.append(key)
        else:
            groups.setdefault(PREFIXES[prefix], {})[key[len(prefix) :]] = array
    return groups, unknown


def _averaged(weights: Weights, ema: bool, path: Path) -> Weights:
    """Puts the averaged copy of the UNet in its place, or leaves it out."""
    copies = {k: v for k, v in weights.items() if re.match(r"model_ema\.(?!decay|num_updates)", k)}
    found = {key: array for key, array in weights.items() if key not in copies}
    if not copies or not ema:
        return found
    names = {"model_ema." + k[len("model.") :].replace(".", ""): k for k in found if UNET in k}
    wrong = sorted(copies.keys() ^ names.keys())
    if wrong:
        raise UserError(
            f"{path}: its averaged (EMA) copy and its UNet differ in {len(wrong)} tensors, "
            f"first {wrong[0]}; use ema=False to take the UNet that is complete"
        )
    return found | {names[name]: array for name, array in copies.items()}


def _add_unet(parts: Parts, weights: Weights, fields: dict, path: Path) -> None:
    shape = unet.unet_shape(weights)
    renamed, unknown = substitute(weights, unet.unet_pairs(shape))
    _refuse_unknown(unknown, UNET, path)
    parts.weights["unet"] = renamed
    parts.configs["unet"] = unet_config(renamed, shape, fields)


def _add_vae(parts: Parts, weights: Weights | None, fields: dict, path: Path) -> None:
    if not weights:
        return
    levels, layers = vae.vae_shape(weights)
    renamed, unknown = substitute(weights, vae.vae_pairs(levels, layers))
    _refuse_unknown(unknown, "first_stage_model.", path)
    parts.weights["vae"] = vae.VAE(renamed, str(path))
    xl = parts.configs["unet"].get("addition_embed_type") is not None
    parts.configs["vae"] = vae_config(renamed, levels, layers, fields, xl=xl)


def _add_conditioners(parts: Parts, groups: dict[str, Weights], path: Path) -> None:
    if "text_encoder" in groups:
        weights = clip.CLIP_TEXT(groups["text_encoder"], str(path))
        parts.weights["text_encoder"] = weights
        parts.configs["text_encoder"] = text_config(weights, "quick_gelu")
    for name in ("text_encoder", "text_encoder_2"):
        if f"{name}/open" in groups:
            penultimate = name == "text_encoder"
            found = clip.from_open_clip(groups[f"{name}/open"], str(path), penultimate=penultimate)
            parts.weights[name] = found
            parts.configs[name] = text_config(found, "gelu")
    if "image_encoder" in groups:  # Paint by Example has it in place of a text encoder
        weights = exemplar.from_original(groups["image_encoder"], str(path))
        parts.weights["image_encoder"] = weights
        parts.configs["image_encoder"] = exemplar.exemplar_config(weights)


def _prediction(parts: Parts, told: str | None, fields: dict, path: Path) -> str:
    """What the UNet predicts: told (by the caller or a mark), by the yaml, or assumed."""
    said = {"v": "v_prediction", "eps": "epsilon", "x0": "sample"}
    written = last(fields, "parameterization")
    if told is not None:
        return told
    if written is not None and written not in said:
        raise UserError(f"{path.with_suffix('.yaml')}: unknown parameterization {written!r}")
    if written is not None or fields:
        return said[written or "eps"]
    if parts.configs["unet"]["cross_attention_dim"] == 1024:
        parts.notices.append(
            f"{path.name} is a Stable Diffusion 2 file, which does not say what it predicts: "
            "epsilon is assumed; if pictures come out as noise, use prediction_type='v_prediction'"
        )
    return "epsilon"


def _refuse_unknown(unknown: list[str], prefix: str, path: Path) -> None:
    if unknown:
        listed = ", ".join(prefix + key for key in sorted(unknown)[:20])
        raise UserError(f"{path}: {len(unknown)} tensors of unknown names: {listed}")
