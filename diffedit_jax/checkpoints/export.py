"""A whole model out again: as a diffusers folder, or as one LDM-style file.

What is written is what was read: tensors keep their bits unless another dtype is asked for.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from diffedit_jax.checkpoints.parts import Parts
from diffedit_jax.checkpoints.read import Weights
from diffedit_jax.checkpoints.single_yaml import yaml_text
from diffedit_jax.checkpoints.tables import clip, exemplar, unet, vae
from diffedit_jax.checkpoints.tables.table import substitute
from diffedit_jax.checkpoints.write import whole_file, whole_folder, write_json, write_safetensors
from diffedit_jax.errors import UserError

FLOATS = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
PIPELINES = {
    4: "StableDiffusionPipeline",
    8: "StableDiffusionInstructPix2PixPipeline",
    9: "StableDiffusionInpaintPipeline",
}
BY_EXAMPLE = "PaintByExamplePipeline"
XL_PIPELINES = {4: "StableDiffusionXLPipeline", 9: "StableDiffusionXLInpaintPipeline"}
CLASSES = {
    "unet": ("diffusers", "UNet2DConditionModel", "diffusion_pytorch_model"),
    "vae": ("diffusers", "AutoencoderKL", "diffusion_pytorch_model"),
    "text_encoder": ("transformers", "CLIPTextModel", "model"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", "model"),
    "image_encoder": ("paint_by_example", exemplar.CLASS, "model"),
}
VERSION = "0.21.0"  # of diffusers: the first whose files have today's names

SaveTokenizer = Callable[[int, Path], None]


def cast(weights: Weights, dtype: str | None, where: str) -> Weights:
    """Floating tensors in another dtype; None leaves them as they are.

    Raises: UserError for an unknown dtype and for numbers that it cannot hold.
    """
    if dtype is None:
        return weights
    if dtype not in FLOATS:
        raise UserError(f"dtype must be one of {', '.join(FLOATS)}, not {dtype!r}")
    found = {}
    for key, array in weights.items():
        with np.errstate(over="ignore"):
            found[key] = array.astype(FLOATS[dtype])
        if not np.isfinite(found[key].astype(np.float32)).all():
            raise UserError(f"{where}: {key} holds numbers that {dtype} cannot hold")
    return found


def write_folder(
    parts: Parts,
    folder: str | Path,
    save_tokenizer: SaveTokenizer,
    *,
    dtype: str | None = None,
    shard_bytes: int | None = None,
) -> None:
    """Writes a diffusers folder, whole or not at all.

    Text encoders get the classic `text_model.` names, which every version of transformers
    reads. `save_tokenizer(i, folder)` writes the i-th tokenizer. `shard_bytes` splits weight
    files that are larger.

    Raises: UserError when the folder is there already, or cannot be written.
    """
    with whole_folder(Path(folder)) as place:
        for name, weights in parts.weights.items():
            (place / name).mkdir()
            written = cast(_classic(name, weights), dtype, f"{name} of {parts.where}")
            _write_weights(place / name, CLASSES[name][2], written, shard_bytes)
            write_json(place / name / "config.json", _config(name, parts.configs[name]))
        write_json(place / "scheduler" / "scheduler_config.json", parts.configs["scheduler"])
        for i in range(len(_text_names(parts))):
            save_tokenizer(i, place / ("tokenizer" if i == 0 else f"tokenizer_{i + 1}"))
        if parts.defaults:
            write_json(place / "defaults.json", parts.defaults)
        write_json(place / "model_index.json", _index(parts))


def _text_names(parts: Parts) -> list[str]:
    return sorted(name for name in parts.weights if name.startswith("text_encoder"))


def _classic(name: str, weights: Weights) -> Weights:
    """transformers' names before 5.6, for its encoders; everything else is as it is."""
    if name == "image_encoder":
        return exemplar.classic(weights)
    if not name.startswith("text_encoder"):
        return weights
    outside = ("text_projection.",)
    return {k if k.startswith(outside) else f"text_model.{k}": v for k, v in weights.items()}


def _config(name: str, config: Mapping) -> dict:
    if CLASSES[name][2] == "model":  # transformers' own
        return dict(config)
    return {"_class_name": CLASSES[name][1], "_diffusers_version": VERSION, **config}


def _index(parts: Parts) -> dict:
    """model_index.json; the pipeline follows from the channels and the number of texts."""
    texts = _text_names(parts)
    channels = parts.configs["unet"].get("in_channels", 4)
    pipelines = PIPELINES if len(texts) < 2 else XL_PIPELINES
    shown = "image_encoder" in parts.weights
    index: dict = {
        "_class_name": BY_EXAMPLE if shown else pipelines.get(channels, pipelines[4]),
        "_diffusers_version": VERSION,
        **{name: list(CLASSES[name][:2]) for name in parts.weights},
        "scheduler": ["diffusers", parts.configs["scheduler"].get("_class_name", "DDIMScheduler")],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "feature_extractor": [None, None],
    }
    if shown:
        del index["tokenizer"]
    if len(texts) > 1:
        return index | {"tokenizer_2": ["transformers", "CLIPTokenizer"], **parts.extras}
    return index | {"safety_checker": [None, None], "requires_safety_checker": False}


def _write_weights(folder: Path, stem: str, weights: Weights, shard_bytes: int | None) -> None:
    shards = _shards(weights, shard_bytes)
    if len(shards) == 1:
        write_safetensors(folder / f"{stem}.safetensors", weights)
        return
    places = {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / name, shard)
        places.update(dict.fromkeys(shard, name))
    total = sum(array.nbytes for array in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    write_json(folder / f"{stem}.safetensors.index.json", index)


def _shards(weights: Weights, limit: int | None) -> list[Weights]:
    """Tensors in order, a new shard wherever the next one would pass the limit."""
    shards: list[Weights] = [{}]
    size = 0
    for key in sorted(weights):
        if limit is not None and shards[-1] and size + weights[key].nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][key] = weights[key]
        size += weights[key].nbytes
    return shards


def write_single_file(parts: Parts, path: str | Path, *, dtype: str | None = None) -> None:
    """Writes one .safetensors file with LDM names, and a yaml beside it, whole or not at all.

    The yaml says what no weight can: what the network predicts, its heads, the schedule.

    Raises: UserError when the model has no LDM form, or the file cannot be written.
    """
    path = Path(path)
    weights = cast(to_ldm(parts), dtype, parts.where)
    for name in [name for name in _text_names(parts)[:1] if _quick(parts, name)]:
        positions = parts.weights[name]["embeddings.position_embedding.weight"].shape[0]
        key = f"{_clip_prefix(parts)}text_model.embeddings.position_ids"
        weights[key] = np.arange(positions, dtype=np.int64)[None]
    with whole_file(path) as temporary:
        write_safetensors(temporary, weights)
    with whole_file(path.with_suffix(".yaml")) as temporary:
        temporary.write_text(yaml_text(parts.configs), encoding="utf-8")


def to_ldm(parts: Parts) -> Weights:
    """All weights of a model under the names of an LDM single file."""
    found = _ldm_unet(parts) | _ldm_vae(parts)
    for name in _text_names(parts):
        found |= _ldm_text(parts, name)
    return found | exemplar.to_original(parts.weights.get("image_encoder", {}))


def _ldm_unet(parts: Parts) -> Weights:
    shape = unet.canonical_shape(parts.weights["unet"])
    return _renamed(parts, "unet", unet.unet_pairs(shape), "model.diffusion_model.")


def _ldm_vae(parts: Parts) -> Weights:
    levels, layers = vae.canonical_shape(parts.weights["vae"])
    found = _renamed(parts, "vae", vae.vae_pairs(levels, layers), "first_stage_model.")
    return {
        key: array[:, :, None, None] if ".mid.attn_1." in key and array.ndim == 2 else array
        for key, array in found.items()
    }


def _renamed(parts: Parts, name: str, pairs: dict[str, str], prefix: str) -> Weights:
    found, unknown = substitute(parts.weights[name], {new: old for old, new in pairs.items()})
    if unknown:
        raise UserError(f"{name} of {parts.where} has no LDM form: {', '.join(unknown[:5])}")
    return {prefix + key: array for key, array in found.items()}


def _ldm_text(parts: Parts, name: str) -> Weights:
    weights, xl = parts.weights[name], len(_text_names(parts)) > 1
    if _quick(parts, name):
        prefix = f"{_clip_prefix(parts)}text_model."
        return {prefix + key: array for key, array in weights.items()}
    found = clip.to_open_clip(weights, penultimate=not xl)
    prefix = "conditioner.embedders.1.model." if xl else "cond_stage_model.model."
    return {prefix + key: array for key, array in found.items()}


def _quick(parts: Parts, name: str) -> bool:
    """Whether a text encoder is OpenAI's (CLIP names in LDM) and not OpenCLIP's."""
    return parts.configs[name].get("hidden_act", "quick_gelu") == "quick_gelu"


def _clip_prefix(parts: Parts) -> str:
    xl = len(_text_names(parts)) > 1
    return "conditioner.embedders.0.transformer." if xl else "cond_stage_model.transformer."
