"""One door for models: a name, a folder, a file or a hub id becomes a StableDiffusion."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffedit_jax.bundles.build import build, digest
from diffedit_jax.bundles.hub import fetch, fetch_tokenizer
from diffedit_jax.bundles.schedule import PREDICTIONS, read_scheduler
from diffedit_jax.bundles.stable_diffusion import Coder, StableDiffusion
from diffedit_jax.bundles.tokenizer import Tokenizer
from diffedit_jax.checkpoints.model_folder import read_configs, read_model_folder
from diffedit_jax.checkpoints.overlay import base_of, lay_over
from diffedit_jax.checkpoints.parts import Parts
from diffedit_jax.checkpoints.single_file import read_single_file
from diffedit_jax.core import Network
from diffedit_jax.errors import UserError

ASSETS = Path(__file__).parent.parent / "assets"
EMBEDDED = tuple(sorted(p.name for p in ASSETS.iterdir() if p.is_dir()))
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DTYPES = ("float32", "bfloat16")


def load(
    source: str | Path = "emoji",
    *,
    dtype: Any = None,
    param_dtype: Any = "float32",
    variant: str | None = None,
    prediction_type: str | None = None,
    ema: bool = True,
    config: str | Path | None = None,
    local_files_only: bool = False,
    lora: Sequence[Any] = (),
    embedding: Sequence[Any] = (),
    place: Callable[[np.ndarray], Any] = jnp.asarray,
    **options: Any,
) -> StableDiffusion:
    """Loads a model.

    Args:
      source: "emoji" (the embedded model), a diffusers folder, a single .safetensors or .ckpt
        file, or a hub id such as "org/name".
      dtype: what networks compute in, "float32" or "bfloat16"; by default float32 on a CPU and
        bfloat16 elsewhere.
      param_dtype: what parameters are kept in.
      variant: of a folder's weight files, such as "fp16".
      prediction_type: "epsilon", "v_prediction" or "sample"; overrides what the files say.
      ema: take the averaged copy of the UNet from a single file that has one.
      config: a diffusers folder whose configs and tokenizer go with a single file.
      local_files_only: never ask the network, use what the hub's cache holds.
      lora: files to merge into the weights, each a path or (path, weight).
      embedding: files of learned words, each a path or (path, word).
      place: puts one host array on its device or mesh.
      options: further fields of the UNet module (attention, operands, remat).

    Raises: UserError, one line that says what is wrong with the source.

        model = load("v1-5-pruned-emaonly.safetensors", dtype="bfloat16")
    """
    if prediction_type not in (None, *PREDICTIONS):
        raise UserError(f"prediction_type must be {', '.join(PREDICTIONS)}, not {prediction_type}")
    parts = read_parts(
        source,
        variant=variant,
        prediction_type=prediction_type,
        ema=ema,
        config=config,
        local_files_only=local_files_only,
    )
    chosen = {"variant": variant, "prediction_type": prediction_type, "ema": ema}
    used = {k: v for k, v in chosen.items() if v not in (None, True)}
    origin = {"source": str(source), "digest": digest(parts), "options": used}
    types = {"dtype": dtype, "param_dtype": param_dtype, "place": place}
    model = assemble(parts, origin, **types, **options)
    for entry in embedding:
        model = model.with_embedding(*_pair(entry))
    for entry in lora:
        model = model.with_lora(*_pair(entry))
    return model


def _pair(entry: Any) -> tuple:
    """A path alone, or with what goes with it."""
    return (entry,) if isinstance(entry, str | Path) else tuple(entry)


def read_parts(
    source: str | Path,
    *,
    variant: str | None = None,
    prediction_type: str | None = None,
    ema: bool = True,
    config: str | Path | None = None,
    local_files_only: bool = False,
) -> Parts:
    """The weights, configs and tokenizers of any source, see `load`; nothing is computed yet."""
    place = find(source, variant=variant, local_files_only=local_files_only)
    base = base_of(place)
    if base is not None:
        parts = read_parts(base, variant=variant, local_files_only=local_files_only)
        lay_over(parts, place)
    elif place.is_dir():
        parts = read_model_folder(place, variant=variant)
    else:
        if variant is not None:
            raise UserError(f"{place} is a single file; variant= is for folders")
        parts = read_single_file(place, prediction_type=prediction_type, ema=ema)
        _complete(parts, place, config, local_files_only)
    if prediction_type is not None:
        parts.configs["scheduler"]["prediction_type"] = prediction_type
    return parts


def find(source: str | Path, *, variant: str | None, local_files_only: bool) -> Path:
    """The folder or file that `source` means, fetched from the hub where it is an id."""
    if isinstance(source, str) and source in EMBEDDED:
        return ASSETS / source
    path = Path(source).expanduser()
    if path.exists() or path.is_symlink():
        return path
    if isinstance(source, str) and HUB_ID.fullmatch(source) and not path.suffix:
        return fetch(source, variant=variant, local_files_only=local_files_only)
    raise UserError(
        f"there is no model {str(source)!r}: it is neither a folder, nor a file, nor one of "
        f"{', '.join(EMBEDDED)}, nor an id of the form org/name"
    )


def _complete(parts: Parts, path: Path, config, local_files_only: bool) -> None:
    """Gives a single file what it lacks: a folder's configs, and a tokenizer from somewhere."""
    told = [name for name in parts.weights if "text" in name]
    if config is not None:
        given = read_configs(config)
        parts.configs.update(given.configs)
        parts.tokenizers = given.tokenizers if told else []
    elif not told:  # Paint by Example
        return
    elif (path.parent / "tokenizer").is_dir():
        parts.tokenizers = [path.parent / "tokenizer"] * len(told)
    else:
        parts.tokenizers = fetch_tokenizer(parts, local_files_only=local_files_only)


def assemble(
    parts: Parts,
    origin: dict,
    *,
    dtype: Any = None,
    param_dtype: Any = "float32",
    place: Callable[[np.ndarray], Any] = jnp.asarray,
    **options: Any,
) -> StableDiffusion:
    """Builds the bundle of a model's parts; every component is checked strictly."""
    dtype = _dtype(dtype) if dtype is not None else default_dtype()
    types = {"dtype": dtype, "param_dtype": _dtype(param_dtype), "place": place}
    names = [name for name in ("text_encoder", "text_encoder_2") if name in parts.weights]
    _refuse_missing(parts, names)
    said = read_scheduler(parts.configs["scheduler"], f"the scheduler of {parts.where}")
    unet, unet_params = build(parts, "unet", **types, **options)
    vae, vae_params = build(parts, "vae", **types)
    texts = [build(parts, name, **types) for name in names]
    shown = build(parts, "image_encoder", **types) if "image_encoder" in parts.weights else None
    _refuse_mismatch(unet, [module for module, _ in texts], shown, parts)
    tokenizers = tuple(
        Tokenizer(folder, length=text.max_position_embeddings, vocabulary=text.vocab_size)
        for folder, (text, _) in zip(parts.tokenizers, texts, strict=True)
    )
    return StableDiffusion(
        denoiser=Network(params=unet_params, module=unet, kind=said.kind),
        vae=Coder(params=vae_params, module=vae),
        texts=tuple(Coder(params=params, module=text) for text, params in texts),
        tokenizers=tokenizers,
        exemplar=shown and Coder(module=shown[0], params=shown[1]),
        schedule=said.schedule,
        scaling_factor=float(vae.scaling_factor),
        clip_sample=said.clip_sample,
        zero_null=bool(parts.extras.get("force_zeros_for_empty_prompt", False)),
        solver=said.solver,
        defaults_json=json.dumps(parts.defaults, sort_keys=True),
        configs_json=json.dumps(parts.configs, sort_keys=True),
        origin_json=json.dumps(origin, sort_keys=True),
        notices=(*parts.notices, *said.notices),
    )


def default_dtype() -> Any:
    """float32 on a CPU, bfloat16 on accelerators."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def _dtype(dtype: Any) -> Any:
    name = jnp.dtype(dtype).name if not isinstance(dtype, str) else dtype
    if name not in DTYPES:
        raise UserError(f"dtype must be {' or '.join(DTYPES)}, not {name}")
    return jnp.dtype(name).type


def _refuse_missing(parts: Parts, texts: list[str]) -> None:
    missing = [name for name in ("unet", "vae") if name not in parts.weights]
    if not texts and "image_encoder" not in parts.weights:
        missing.append("text_encoder")
    if len(parts.tokenizers) != len(texts):
        missing.append("tokenizer (name a diffusers folder that has one with config=)")
    if missing:
        raise UserError(f"{parts.where} has no {', no '.join(missing)}")


def _refuse_mismatch(unet, texts: list, shown: tuple | None, parts: Parts) -> None:
    """The encoders' widths together must be what the UNet attends to."""
    width = shown[0].projection_dim if shown else sum(text.hidden_size for text in texts)
    if width != unet.context_width:
        kind = "image" if shown else "text"
        raise UserError(
            f"{parts.where}: the {kind} encoder gives {width} channels, the UNet attends to "
            f"{unet.context_width}; these components do not belong together"
        )
