"""Names of Paint by Example's encoder: diffusers' are canonical, the original file's are renamed.

Source: diffusers' PaintByExampleImageEncoder; Fantasy-Studio/Paint-by-Example
ldm/modules/encoders/xf.py (queries, keys and values as the thirds of one projection).
"""

import re

import numpy as np

from diffedit_jax.checkpoints.tables.clip import layer_count
from diffedit_jax.checkpoints.tables.table import Table, Weights
from diffedit_jax.errors import UserError

CLASS = "PaintByExampleImageEncoder"
TOWER = "model."
EXEMPLAR = Table(
    rename=((r"^model\.vision_model\.", TOWER),),
    ignored=(r"model\.(vision_model\.)?embeddings\.position_ids",),
)
ORIGINAL = re.compile(
    r"cond_stage_model\.(transformer\.vision_model|mapper|final_ln)\.|proj_out\.|learnable_vector$"
)
_ORIGINAL = Table(
    rename=(
        (r"^cond_stage_model\.transformer\.vision_model\.", TOWER),
        (r"^cond_stage_model\.mapper\.resblocks\.", "mapper.blocks."),
        (r"^cond_stage_model\.final_ln\.", "final_layer_norm."),
        (r"^learnable_vector$", "uncond_vector"),
        (r"\.ln_1\.", ".norm1."),
        (r"\.ln_2\.", ".norm3."),
        (r"\.attn\.c_proj\.", ".attn1.to_out.0."),
        (r"\.mlp\.c_fc\.", ".ff.net.0.proj."),
        (r"\.mlp\.c_proj\.", ".ff.net.2."),
    ),
    ignored=(r".*\.embeddings\.position_ids",),
)
_BACK = (
    (r"^mapper\.blocks\.", "cond_stage_model.mapper.resblocks."),
    (r"^model\.", "cond_stage_model.transformer.vision_model."),
    (r"^final_layer_norm\.", "cond_stage_model.final_ln."),
    (r"^uncond_vector$", "learnable_vector"),
    (r"\.norm1\.", ".ln_1."),
    (r"\.norm3\.", ".ln_2."),
    (r"\.attn1\.to_out\.0\.", ".attn.c_proj."),
    (r"\.ff\.net\.0\.proj\.", ".mlp.c_fc."),
    (r"\.ff\.net\.2\.", ".mlp.c_proj."),
)
_FUSED = re.compile(r"(mapper\.blocks\.\d+)\.attn\.c_qkv\.(weight|bias)")
_QUERY = re.compile(r"(mapper\.blocks\.\d+)\.attn1\.to_q\.(weight|bias)")


def from_original(weights: Weights, where: str) -> Weights:
    """The tensors of an original file that `ORIGINAL` matches, under canonical names."""
    found: Weights = {}
    for name, array in _ORIGINAL(weights, where).items():
        match = _FUSED.fullmatch(name)
        if match is None:
            found[name] = array
            continue
        if array.shape[0] % 3:
            raise UserError(f"{where}: {name!r} cannot be split into query, key and value")
        for part, piece in zip("qkv", np.split(array, 3), strict=True):
            found[f"{match[1]}.attn1.to_{part}.{match[2]}"] = piece
    return found


def to_original(weights: Weights) -> Weights:
    """The inverse of `from_original`."""
    found: Weights = {}
    for key, array in weights.items():
        if match := _QUERY.fullmatch(key):
            parts = [weights[f"{match[1]}.attn1.to_{part}.{match[2]}"] for part in "qkv"]
            found[_old_name(f"{match[1]}.attn.c_qkv.{match[2]}")] = np.concatenate(parts)
        elif not re.search(r"\.attn1\.to_[kv]\.", key):
            found[_old_name(key)] = array
    return found


def _old_name(key: str) -> str:
    for pattern, replacement in _BACK:
        key = re.sub(pattern, replacement, key)
    return key


def classic(weights: Weights) -> Weights:
    """transformers' names before 5.6: the tower is `model.vision_model.`."""
    old = f"{TOWER}vision_model."
    return {old + k[len(TOWER) :] if k.startswith(TOWER) else k: v for k, v in weights.items()}


def exemplar_config(weights: Weights) -> dict:
    """The config that the shapes of canonical weights tell; heads have 64 channels, as CLIP's."""
    tower = {k[len(TOWER) :]: v for k, v in weights.items() if k.startswith(TOWER)}
    width, _, patch, _ = tower["embeddings.patch_embedding.weight"].shape
    patches = len(tower["embeddings.position_embedding.weight"]) - 1
    return {
        "architectures": [CLASS],
        "hidden_act": "quick_gelu",
        "hidden_size": width,
        "image_size": patch * round(patches**0.5),
        "intermediate_size": len(tower["encoder.layers.0.mlp.fc1.bias"]),
        "layer_norm_eps": 1e-5,
        "model_type": "clip_vision_model",
        "num_attention_heads": max(width // 64, 1),
        "num_channels": 3,
        "num_hidden_layers": layer_count(tower),
        "patch_size": patch,
        "projection_dim": len(weights["proj_out.weight"]),
    }
