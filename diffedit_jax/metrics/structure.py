"""DINO: how alike two pictures are laid out, and how alike their subjects are.

Source: Tumanyan et al. 2022 (Splice) for keys and self-similarity; cure-lab/PnPInversion
evaluation/matrics_calculator.py for the distance; Ruiz et al. 2023 for subject fidelity.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffedit_jax.checkpoints.files import map_file
from diffedit_jax.checkpoints.folder import read_component
from diffedit_jax.checkpoints.read import read
from diffedit_jax.checkpoints.safetensors_file import is_safetensors
from diffedit_jax.checkpoints.tables.vit import dino_sizes, dino_weights
from diffedit_jax.checkpoints.torch_file import read_torch
from diffedit_jax.errors import UserError
from diffedit_jax.metrics.network import Judge, existing, fill
from diffedit_jax.metrics.pictures import pair
from diffedit_jax.metrics.prepare import DINO_FILES, PIE_BENCH, STRUCTURE, Preparation
from diffedit_jax.models.vit import ViT

PRESETS = {"pie_bench": PIE_BENCH, "corrected": STRUCTURE}


def load_dino(path: str | Path, *, heads: int | None = None) -> Judge:
    """DINO's ViT: `judge(pixels)` gives (CLS [n, d], {"keys", "blocks", ...}), see models.vit.ViT.

    Args:
      path: an official file (dino_vitbase8_pretrain.pth, dino_deitsmall16_pretrain.pth, or a whole
        training checkpoint, of which the teacher is taken), timm's, or transformers' ViTModel as a
        file or folder.
      heads: of each block; by default 64 channels to a head, as in every published model.

    Raises: UserError naming every tensor that does not fit.

        judge = load_dino("dino_vitbase8_pretrain.pth")
    """
    path = existing(path, "DINO weights")
    weights = dino_weights(_read(path), str(path))
    sizes = dino_sizes(weights, str(path))
    module = ViT(**sizes, heads=heads or max(1, sizes["features"] // 64))
    side = 2 * module.patch
    shape = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return fill(module, weights, f"DINO of {path}", shape)


def _read(path: Path) -> dict:
    if path.is_dir():
        return read_component(path, None, lambda line: None)
    if is_safetensors(map_file(path)[:16]):
        return read(path)
    found = read_torch(path)
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no tensors by name")
    return found if any(name in found for name in ("teacher", "student")) else read(path)


def self_similarity(keys: Float[Array, "*n t d"]) -> Float[Array, "*n t t"]:
    """S_ij = k_i . k_j / max(|k_i| |k_j|, 1e-8)."""
    product = jnp.einsum("...id,...jd->...ij", keys, keys, precision=jax.lax.Precision.HIGHEST)
    square = jnp.square(keys).sum(-1)
    length = jnp.sqrt(jnp.where(square == 0, 1.0, square)) * (square > 0)
    return product / jnp.maximum(length[..., :, None] * length[..., None, :], 1e-8)


def dino_structure_distance(
    a: Any, b: Any, dino: Judge, preset: str | Preparation = "pie_bench"
) -> Float[Array, "*n"]:
    """Mean squared difference of the two pictures' self-similarities; 0 for equal pictures.

    mean_ij (S_ij(a) - S_ij(b))^2 over the last block's keys, the class token's included.

    Args:
      a, b: pictures [..., h, w, 3], uint8 or floats in [0, 1]; the same size.
      dino: from `load_dino`; the published numbers use ViT-B/8.
      preset: "pie_bench" feeds values up to 255 to a network that expects 1, as the script behind
        every published PIE-Bench table does; "corrected" does not; or a Preparation.

    Returns: [...]; PIE-Bench prints it times 10^3.
    Raises: UserError for an unknown preset and pictures of different sizes.
    """
    if isinstance(preset, str) and preset not in PRESETS:
        raise UserError(f"preset is {' or '.join(PRESETS)}, not {preset!r:.40}")
    preparation = PRESETS[preset] if isinstance(preset, str) else preset
    a, b = pair(a, b)
    rows = [preparation(x.reshape(-1, *x.shape[-3:])) for x in (a, b)]
    layouts = [self_similarity(dino(x)[1]["keys"].astype(jnp.float32)) for x in rows]
    found = jnp.square(layouts[0] - layouts[1]).mean((-2, -1))
    return found.reshape(a.shape[:-3])


def dino_features(
    pictures: Any, dino: Judge, preparation: Preparation = DINO_FILES
) -> Float[Array, "n d"]:
    """CLS after the last norm of pictures [n, h, w, 3], not normalised."""
    return dino(preparation(pictures))[0]
