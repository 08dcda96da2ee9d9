"""LoRAs out again: in diffusers' layout and in kohya's."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffedit_jax.checkpoints.lora import Layer
from diffedit_jax.checkpoints.read import Weights
from diffedit_jax.checkpoints.tables.lora import CLASSIC, Shapes, kohya_name
from diffedit_jax.checkpoints.write import whole_file, write_safetensors
from diffedit_jax.errors import UserError

# Modules that diffusers renames. It reads a component either by these names or by PEFT's lora_A and
# lora_B, and drops the first kind where both stand side by side: so a component is written in one.
UNET_ATTENTION = re.compile(r".*\.to_(q|k|v|out\.0)")
TEXT_ATTENTION = re.compile(r".*\.(q|k|v|out)_proj")
COMPONENTS = ("unet", "text_encoder", "text_encoder_2")


def write_lora(
    path: str | Path,
    layers: Mapping[str, Any],
    *,
    layout: str = "diffusers",
    shapes: Shapes | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a LoRA, whole or not at all.

    Args:
      path: the file, ending in .safetensors.
      layers: {module: (down, up, alpha)}; modules as "unet.mid_block.attentions.0....to_q" or
        "text_encoder.encoder.layers.0.self_attn.q_proj"; down [r, in(, kh, kw)], up [out, r(, 1,
        1)] in torch's order; alpha None for r.
      layout: "diffusers" (alphas in the lora_adapter_metadata of the header, which diffusers
        reads since 0.34; leave alpha at r for older ones) or "kohya" (alphas as tensors).
      shapes: the model's modules, which kohya's names of an SDXL UNet need.
      metadata: further texts for the header, such as kohya's ss_*.

    Raises: UserError for an unknown layout or component, halves that do not fit each other.

        write_lora("sks.safetensors", {"unet.mid_block....to_q": (down, up, 4.0)})
    """
    path = Path(path)
    if layout not in ("diffusers", "kohya"):
        raise UserError(f"layout must be diffusers or kohya, not {layout!r}")
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: a LoRA is written as .safetensors")
    found = {module: _checked(module, said) for module, said in layers.items()}
    if not found:
        raise UserError(f"{path}: a LoRA of no module is not written")
    weights = _diffusers(found) if layout == "diffusers" else _kohya(found, shapes)
    told = {"lora_adapter_metadata": json.dumps(_settings(found))} if layout == "diffusers" else {}
    with whole_file(path) as temporary:
        write_safetensors(temporary, weights, {**(metadata or {}), **told})


def _checked(module: str, said: Any) -> Layer:
    down, up, alpha = said
    layer = Layer(np.asarray(down), np.asarray(up), None if alpha is None else float(alpha))
    if module.split(".", 1)[0] not in COMPONENTS or "." not in module:
        raise UserError(f"the module {module!r} must begin with one of {', '.join(COMPONENTS)}")
    if min(layer.down.ndim, layer.up.ndim) < 2 or layer.up.shape[1] != layer.down.shape[0]:
        raise UserError(f"{module}: {layer.up.shape} @ {layer.down.shape} is no LoRA")
    return layer


def _diffusers(layers: Mapping[str, Layer]) -> Weights:
    found: Weights = {}
    names = {component: _names(component, layers) for component in COMPONENTS}
    for module, layer in layers.items():
        component, path = module.split(".", 1)
        name = module if component == "unet" else f"{component}.{CLASSIC}{path}"
        down, up = names[component]
        found |= {name + down: _packed(layer.down), name + up: _packed(layer.up)}
    return found


def _names(component: str, layers: Mapping[str, Layer]) -> tuple[str, str]:
    """How the keys of a component's layers end."""
    pattern = UNET_ATTENTION if component == "unet" else TEXT_ATTENTION
    own = [m for m in layers if m.startswith(f"{component}.")]
    if not all(pattern.fullmatch(module) for module in own):
        return ".lora_A.weight", ".lora_B.weight"
    middle = "lora" if component == "unet" else "lora_linear_layer"
    return f".{middle}.down.weight", f".{middle}.up.weight"


def _settings(layers: Mapping[str, Layer]) -> dict[str, Any]:
    """PEFT's settings per component: the first module's rank and alpha, and who differs."""
    found: dict[str, Any] = {}
    for component in COMPONENTS:
        own = {m.split(".", 1)[1]: v for m, v in layers.items() if m.startswith(f"{component}.")}
        if not own:
            continue
        # PEFT compares the ends of names, so that these also match under `text_model.`
        ranks = {path: layer.down.shape[0] for path, layer in own.items()}
        alphas = {path: _alpha(layer) for path, layer in own.items()}
        rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
        said = {
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": {path: r for path, r in ranks.items() if r != rank},
            "alpha_pattern": {path: a for path, a in alphas.items() if a != alpha},
            "target_modules": sorted(ranks),
            "peft_type": "LORA",
            "bias": "none",
            "lora_dropout": 0.0,
        }
        found |= {f"{component}.{key}": value for key, value in said.items()}
    return found


def _alpha(layer: Layer) -> float:
    alpha = layer.down.shape[0] if layer.alpha is None else layer.alpha
    return int(alpha) if float(alpha).is_integer() else alpha


def _kohya(layers: Mapping[str, Layer], shapes: Shapes | None) -> Weights:
    both = any(module.startswith("text_encoder_2.") for module in (*layers, *(shapes or {})))
    if both and shapes is None:
        raise UserError("kohya's names for SDXL need the model's modules (shapes=)")
    found: Weights = {}
    for module, layer in layers.items():
        name = kohya_name(module, shapes, both)
        found[f"{name}.lora_down.weight"] = _packed(layer.down)
        found[f"{name}.lora_up.weight"] = _packed(layer.up)
        found[f"{name}.alpha"] = np.asarray(_alpha(layer), np.float32)
    return found


def _packed(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array)
