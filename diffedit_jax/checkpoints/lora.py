"""LoRA files of every layout: read into one form, strictly, and added to weights.

    W + weight alpha / r up @ down          [out, r] @ [r, in], convolutions: [r, in, kh, kw]

Source: Hu et al. 2021, eq. 3; kohya-ss/sd-scripts networks/lora.py (merge_to, alpha of 0 or
none meaning r); diffusers loaders/lora_base.py (lora_adapter_metadata); peft LoraConfig.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from diffedit_jax.checkpoints.files import parse_json, read_json, refuse_absent
from diffedit_jax.checkpoints.read import Weights, read
from diffedit_jax.checkpoints.safetensors_file import read_metadata
from diffedit_jax.checkpoints.tables.lora import Shapes, other_kind, spellings, split
from diffedit_jax.errors import UserError

LIST_LIMIT = 20  # modules that do not fit, spelt out; the rest is counted
FOLDER_FILES = ("adapter_model.safetensors", "adapter_model.bin")  # of PEFT
DIFFUSERS_FILES = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")


class Layer(NamedTuple):
    """What a LoRA adds to one module: alpha / r up @ down, with r = down.shape[0].

    Attributes:
      down: [r, in], or [r, in, kh, kw] for a convolution.
      up: [out, r], or [out, r, 1, 1].
      alpha: None stands for r.
    """

    down: np.ndarray
    up: np.ndarray
    alpha: float | None = None

    @property
    def scale(self) -> float:
        """alpha / r."""
        rank = self.down.shape[0]
        return 1.0 if self.alpha is None else self.alpha / rank


Layers = dict[str, Layer]


def read_lora(path: str | Path, shapes: Shapes) -> Layers:
    """Reads a LoRA for a model whose modules have the given shapes.

    Layouts: kohya (linear, convolutions, alphas, lora_te, lora_te1, lora_te2, LDM names of SDXL),
    diffusers (with lora_adapter_metadata), PEFT names and adapter folders, the attention
    processors of 2023 with or without `unet.`, and old text encoder names.

    Args:
      path: a file, or a folder that PEFT or diffusers wrote.
      shapes: {"unet.conv_in": shape of its weight in torch, "text_encoder....q_proj": ...}.

    Returns: {module: Layer}, the modules as `shapes` names them.
    Raises: UserError naming every key that belongs to no module of the model, every module
    whose shapes are another model's, adapters of other kinds, and halves without the other.

        read_lora("pytorch_lora_weights.safetensors", shapes)["unet.mid_block....to_q"].scale
    """
    file = lora_file(Path(path))
    settings = _settings(file)
    parts = _parts(read(file), spellings(shapes), file)
    layers = {module: _layer(module, said, file) for module, said in parts.items()}
    layers = {m: _with_alpha(m, layer, settings, file) for m, layer in layers.items()}
    _refuse_misfits(layers, shapes, file)
    return layers


def delta(layer: Layer, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """alpha / r up @ down, in the torch shape of the module's weight, float32."""
    rank = layer.down.shape[0]
    down = layer.down.astype(np.float32).reshape(rank, -1)
    up = layer.up.astype(np.float32).reshape(-1, rank)
    return (np.float32(layer.scale) * (up @ down)).reshape(shape)


def lora_file(path: Path) -> Path:
    """The weight file that a path means: itself, or the one in a folder of PEFT or diffusers."""
    if not path.is_dir():
        refuse_absent(path)
        return path
    found = [path / name for name in (*FOLDER_FILES, *DIFFUSERS_FILES) if (path / name).is_file()]
    if not found:
        raise UserError(f"{path} holds no LoRA ({FOLDER_FILES[0]} or {DIFFUSERS_FILES[0]})")
    return found[0]


def _settings(file: Path) -> Mapping[str, Any]:
    """What PEFT says of a LoRA: beside the file, or in diffusers' metadata inside it."""
    beside = file.parent / "adapter_config.json"
    if file.name in FOLDER_FILES and beside.is_file():
        return read_json(beside)
    text = read_metadata(file).get("lora_adapter_metadata")
    return {} if text is None else parse_json(text.encode(), f"the metadata of {file}")


def _parts(weights: Weights, names: Mapping[str, str | None], file: Path) -> dict[str, dict]:
    """{module: {"down", "up", "alpha"}}; every key must find its place."""
    found: dict[str, dict[str, np.ndarray]] = {}
    strange = []
    for key, array in weights.items():
        if kind := other_kind(key):
            raise UserError(f"{file} is {kind}, which is not supported: {key}")
        spelt = split(key)
        module = names.get(spelt[0]) if spelt else None
        if spelt is None or module is None:
            strange.append(key)
        elif spelt[1] in found.setdefault(module, {}):
            raise UserError(f"{file} holds the {spelt[1]} of {module} twice, once as {key}")
        else:
            found[module][spelt[1]] = array
    if strange:
        raise UserError(
            f"{file}: {len(strange)} of {len(weights)} keys belong to no module of this model: "
            f"{', '.join(strange)}"
        )
    return found


def _layer(module: str, said: Mapping[str, np.ndarray], file: Path) -> Layer:
    missing = [role for role in ("down", "up") if role not in said]
    if missing:
        raise UserError(f"{file}: {module} has no {' and no '.join(missing)} weight")
    for role, array in said.items():
        if not np.isfinite(array.astype(np.float32)).all():
            raise UserError(f"{file}: the {role} of {module} holds NaN or infinity")
    down, up, alpha = said["down"], said["up"], said.get("alpha")
    if alpha is None:
        return Layer(down, up)
    if alpha.size != 1:
        raise UserError(f"{file}: the alpha of {module} is {list(alpha.shape)}, not a number")
    return Layer(down, up, float(alpha.reshape(())) or None)


def _with_alpha(module: str, layer: Layer, settings: Mapping[str, Any], file: Path) -> Layer:
    """The alpha that PEFT's settings give a module, where its file has none."""
    component, path = module.split(".", 1)
    own = {k.removeprefix(f"{component}."): v for k, v in settings.items()}
    for name in ("use_dora", "fan_in_fan_out", "lora_bias"):
        if own.get(name):
            raise UserError(f"{file} uses {name}, which is not supported")
    if own.get("peft_type", "LORA") != "LORA":
        raise UserError(f"{file} is an adapter of the type {own['peft_type']!r:.40}, not a LoRA")
    if layer.alpha is not None or "lora_alpha" not in own:
        return layer
    patterns = own.get("alpha_pattern") or {}
    alpha = next((a for p, a in patterns.items() if _matches(p, path)), own["lora_alpha"])
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise UserError(f"{file}: its lora_alpha is {json.dumps(alpha):.40}, not a number")
    root = layer.down.shape[0] ** 0.5 if own.get("use_rslora") else 1.0
    return layer._replace(alpha=float(alpha) * root)


def _matches(pattern: str, path: str) -> bool:
    """PEFT's patterns name a module by its end; only plain names are looked for."""
    plain = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".").replace("\\", "")
    plain = plain.removeprefix("text_model.")
    return re.fullmatch(rf"(?:.*\.)?{re.escape(plain)}", path) is not None


def _refuse_misfits(layers: Layers, shapes: Shapes, file: Path) -> None:
    wrong = []
    for module, layer in layers.items():
        shape = shapes[module]
        if not _fits(layer, shape):
            made = f"{list(layer.up.shape)} @ {list(layer.down.shape)}"
            wrong.append(f"{module} is {list(shape)}, the LoRA gives {made}")
    if wrong:
        more = f"; and {len(wrong) - LIST_LIMIT} more" if len(wrong) > LIST_LIMIT else ""
        raise UserError(
            f"{file} was made for another base model: {len(wrong)} of {len(layers)} modules do "
            f"not fit: {'; '.join(wrong[:LIST_LIMIT])}{more}"
        )


def _fits(layer: Layer, shape: tuple[int, ...]) -> bool:
    """up [out, r, ones] and down [r, in, window] for a weight [out, in, window]."""
    up, down = layer.up.shape, layer.down.shape
    if min(len(up), len(down)) < 2 or up[1] != down[0] or set(up[2:]) - {1}:
        return False
    ones = (1,) * (4 - len(shape))
    made = (up[0], *down[1:], *(1,) * (4 - len(down)))
    return made == (*shape, *ones)
