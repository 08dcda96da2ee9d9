"""CLIP names: transformers' without `text_model.` are canonical; OpenCLIP's are split and renamed.

Source: transformers' CLIPTextModel before and after version 5.6 (which dropped the prefix);
open_clip's transformer.py for the fused in_proj and the projection used as x @ P.
"""

import re

import numpy as np

from diffedit_jax.checkpoints.tables.table import Table, Weights
from diffedit_jax.errors import UserError

CLIP_TEXT = Table(
    rename=((r"^text_model\.", ""),),
    ignored=(r"(text_model\.)?embeddings\.position_ids",),
)
CLIP_VISION = Table(
    rename=((r"^vision_model\.", ""),),
    ignored=(r"(vision_model\.)?embeddings\.position_ids",),
)
OPEN_CLIP = Table(
    rename=(
        (r"^positional_embedding$", "embeddings.position_embedding.weight"),
        (r"^token_embedding\.", "embeddings.token_embedding."),
        (r"^ln_final\.", "final_layer_norm."),
        (r"^text_projection$", "text_projection.weight"),
        (r"^transformer\.resblocks\.", "encoder.layers."),
        (r"\.ln_(\d)\.", r".layer_norm\1."),
        (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
        (r"\.mlp\.c_fc\.", ".mlp.fc1."),
        (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    ),
    ignored=("logit_scale", "attn_mask"),
)
OPENAI_VISION = Table(  # the rest of its names are those of the text tower
    rename=(
        (r"^visual\.class_embedding$", "embeddings.class_embedding"),
        (r"^visual\.positional_embedding$", "embeddings.position_embedding.weight"),
        (r"^visual\.conv1\.", "embeddings.patch_embedding."),
        (r"^visual\.ln_pre\.", "pre_layrnorm."),
        (r"^visual\.ln_post\.", "post_layernorm."),
        (r"^visual\.proj$", "visual_projection.weight"),
        (r"^visual\.", ""),
    ),
)
FUSED = re.compile(r"(encoder\.layers\.\d+)\.attn\.in_proj_(weight|bias)")
LAYER = re.compile(r"encoder\.layers\.(\d+)\.")


def from_open_clip(weights: Weights, where: str, *, penultimate: bool) -> Weights:
    """OpenCLIP's text tower under transformers' names.

    `penultimate` (Stable Diffusion 2) drops the last block and the projection: that model is
    conditioned on what the block before it says, and diffusers folders lack both.
    """
    found: Weights = {}
    for name, array in OPEN_CLIP(weights, where).items():
        if match := FUSED.fullmatch(name):
            found.update(_split(match, array, where))
        else:
            found[name] = array.T if name == "text_projection.weight" else array
    return _without_last(found) if penultimate else found


def _split(match: re.Match, array: np.ndarray, where: str) -> Weights:
    if array.shape[0] % 3:
        raise UserError(f"{where}: {match.string!r} cannot be split into query, key and value")
    layer, leaf = match.groups()
    parts = zip("qkv", np.split(array, 3), strict=True)
    return {f"{layer}.self_attn.{part}_proj.{leaf}": piece for part, piece in parts}


def layer_count(weights: Weights) -> int:
    """Number of transformer layers, from canonical names."""
    return 1 + max((int(m[1]) for key in weights if (m := LAYER.match(key))), default=-1)


def _without_last(weights: Weights) -> Weights:
    last = f"encoder.layers.{layer_count(weights) - 1}."
    return {
        key: array
        for key, array in weights.items()
        if not key.startswith(last) and key != "text_projection.weight"
    }


def to_open_clip(weights: Weights, *, penultimate: bool) -> Weights:
    """The inverse of `from_open_clip`.

    With `penultimate` the block and projection that Stable Diffusion 2 never uses are filled
    with a copy of the last used block and the identity: loaders insist on their presence.
    """
    if penultimate:
        weights = _with_unused(weights)
    fused = re.compile(r"(encoder\.layers\.\d+\.)self_attn\.q_proj\.(weight|bias)")
    found: Weights = {}
    for key, array in weights.items():
        if match := fused.fullmatch(key):
            parts = [weights[f"{match[1]}self_attn.{p}_proj.{match[2]}"] for p in "qkv"]
            found[_open_name(f"{match[1]}attn.in_proj_{match[2]}")] = np.concatenate(parts)
        elif not re.search(r"self_attn\.[kv]_proj\.", key):
            found[_open_name(key)] = array.T if key == "text_projection.weight" else array
    return found


def _with_unused(weights: Weights) -> Weights:
    count = layer_count(weights)
    last, extra = f"encoder.layers.{count - 1}.", f"encoder.layers.{count}."
    copies = {extra + k[len(last) :]: v for k, v in weights.items() if k.startswith(last)}
    bias = weights["final_layer_norm.bias"]
    return {**weights, **copies, "text_projection.weight": np.eye(len(bias), dtype=bias.dtype)}


_OPEN_NAMES = (
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^embeddings\.token_embedding\.", "token_embedding."),
    (r"^final_layer_norm\.", "ln_final."),
    (r"^text_projection\.weight$", "text_projection"),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def _open_name(key: str) -> str:
    for pattern, replacement in _OPEN_NAMES:
        key = re.sub(pattern, replacement, key)
    return key
