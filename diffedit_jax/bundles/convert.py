"""From one form of a model to another, and from a bundle back to files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffedit_jax.bundles.build import expected_params, make_module
from diffedit_jax.bundles.loading import load, read_parts
from diffedit_jax.bundles.stable_diffusion import StableDiffusion
from diffedit_jax.bundles.tokenizer import Tokenizer
from diffedit_jax.checkpoints.export import write_folder, write_single_file
from diffedit_jax.checkpoints.load import check, export
from diffedit_jax.checkpoints.parts import Parts
from diffedit_jax.errors import UserError


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    dtype: str | None = None,
    variant: str | None = None,
    prediction_type: str | None = None,
    ema: bool = True,
    config: str | Path | None = None,
    shard_bytes: int | None = None,
    local_files_only: bool = False,
    lora: Sequence[Any] = (),
    embedding: Sequence[Any] = (),
) -> list[str]:
    """Rewrites a model: to one LDM file if `dst` ends in .safetensors, else to a diffusers folder.

    Args:
      src: anything that `load` takes. The other arguments of `load` mean here what they mean there.
      dst: must not be there yet (a folder may be empty); it appears whole or not at all.
      dtype: "float32", "float16", "bfloat16"; None keeps every tensor's own.
      shard_bytes: splits a folder's weight files that would be larger.
      lora, embedding: files to merge into the model first, as `load` takes them; weights are then
        float32 unless `dtype` says otherwise.

    Returns: what the user should know, one line each.
    Raises: UserError; every tensor is checked against the network before anything is written.

        convert("v1-5-pruned.ckpt", "stable-diffusion-v1-5", config="another-sd-folder")
    """
    _check_target(Path(dst))
    chosen: dict[str, Any] = {
        "variant": variant,
        "prediction_type": prediction_type,
        "ema": ema,
        "config": config,
        "local_files_only": local_files_only,
    }
    if lora or embedding:
        model = load(src, dtype="float32", lora=lora, embedding=embedding, **chosen)
        save(model, dst, dtype=dtype, shard_bytes=shard_bytes)
        return list(model.notices)
    parts = read_parts(src, **chosen)
    check_parts(parts)
    _write(parts, Path(dst), dtype, shard_bytes)
    return parts.notices


def save(
    model: StableDiffusion,
    dst: str | Path,
    *,
    dtype: str | None = None,
    shard_bytes: int | None = None,
) -> None:
    """Writes a bundle, in the forms that `convert` writes.

    save(model, "my-model", dtype="float16")
    """
    _check_target(Path(dst))
    names = ["text_encoder", "text_encoder_2"][: len(model.texts)]
    parts = Parts(where=str(model.origin.get("source", "the model")), configs=model.configs)
    parts.defaults = json.loads(model.defaults_json)
    parts.extras = {"force_zeros_for_empty_prompt": True} if model.zero_null else {}
    coders = {
        "unet": model.denoiser,
        "vae": model.vae,
        **dict(zip(names, model.texts, strict=True)),
    }
    if model.exemplar is not None:
        coders["image_encoder"] = model.exemplar
    parts.weights = {name: export(coder.params) for name, coder in coders.items()}
    _write(parts, Path(dst), dtype, shard_bytes, model.tokenizers)


def check_parts(parts: Parts) -> None:
    """Checks every component's weights against its config, without loading them anywhere."""
    for name, weights in parts.weights.items():
        where = f"{name} of {parts.where}"
        module = make_module(name, parts.configs[name], weights, where)
        check(expected_params(name, module, where), weights, where)


def _check_target(dst: Path) -> None:
    if dst.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise UserError(f"{dst}: only safetensors are written; end the name in .safetensors")
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise UserError(f"{dst} is there already; choose another name or remove it")


def _write(parts: Parts, dst: Path, dtype, shard_bytes, tokenizers: tuple = ()) -> None:
    if dst.suffix == ".safetensors":
        if shard_bytes is not None:
            raise UserError("a single file has no shards; name a folder, or leave shard_bytes out")
        write_single_file(parts, dst, dtype=dtype)
        return
    texts = [config for name, config in sorted(parts.configs.items())
             if "text" in name and name in parts.weights]  # fmt: skip
    tokenizers = tokenizers or tuple(
        Tokenizer(
            folder,
            length=text.get("max_position_embeddings", 77),
            vocabulary=text.get("vocab_size", 49408),
        )
        for folder, text in zip(parts.tokenizers, texts, strict=False)
    )
    if len(tokenizers) != len(texts):
        raise UserError(f"{parts.where} has no tokenizer; name a diffusers folder with config=")
    write_folder(
        parts,
        dst,
        lambda i, folder: tokenizers[i].save(folder),
        dtype=dtype,
        shard_bytes=shard_bytes,
    )
