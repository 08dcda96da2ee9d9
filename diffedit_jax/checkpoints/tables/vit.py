"""Names of DINO's vision transformers: the official file's (timm's are the same), transformers'.

Source: facebookresearch/dino main_dino.py for the wrapped training checkpoints; transformers
models/vit/modeling_vit.py (ViTModel).
"""

import re

import numpy as np

from diffedit_jax.checkpoints.tables.table import Table, Weights
from diffedit_jax.errors import UserError

WRAPPERS = ("teacher", "student")  # of the two, the teacher is the better one
DINO = Table(
    rename=((r"^(?:module\.)?(?:backbone\.)?", ""),),
    ignored=(r"(?:module\.)?head\..*", r"fc_norm\..*"),
)
TRANSFORMERS = Table(
    rename=(
        (r"^vit\.", ""),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^encoder\.layer\.", "blocks."),
        (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
        (r"\.attention\.output\.dense\.", ".attn.proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"^layernorm\.", "norm."),
    ),
    ignored=(r"(vit\.)?pooler\..*", r"classifier\..*"),
)
QUERY = re.compile(r"(blocks\.\d+\.attn)\.query\.(weight|bias)")


def dino_weights(found: Weights | dict, where: str) -> Weights:
    """The backbone's tensors under the official names, whichever of the three a file uses."""
    inner = next((found[name] for name in WRAPPERS if isinstance(found.get(name), dict)), found)
    if any(key.endswith("embeddings.cls_token") for key in inner):
        return _packed(TRANSFORMERS(inner, where))
    return DINO(inner, where)


def _packed(weights: Weights) -> Weights:
    """Separate queries, keys and values as the one projection that DINO has."""
    found = {k: v for k, v in weights.items() if not re.search(r"\.(query|key|value)\.", k)}
    for key in weights:
        if match := QUERY.fullmatch(key):
            parts = [f"{match[1]}.{part}.{match[2]}" for part in ("query", "key", "value")]
            absent = [part for part in parts if part not in weights]
            if absent:
                raise UserError(f"DINO weights: {absent[0]} is missing")
            found[f"{match[1]}.qkv.{match[2]}"] = np.concatenate([weights[part] for part in parts])
    return found


def dino_sizes(weights: Weights, where: str) -> dict[str, int]:
    """{"features", "depth", "patch", "grid"} that the shapes tell.

    Raises: UserError when these are not the weights of such a network.
    """
    try:
        features, _, patch, _ = weights["patch_embed.proj.weight"].shape
        places = weights["pos_embed"].shape[1] - 1
    except (KeyError, ValueError, IndexError):
        raise UserError(f"{where} holds no DINO vision transformer (cls_token, blocks.*)") from None
    depth = 1 + max((int(k.split(".")[1]) for k in weights if re.match(r"blocks\.\d+\.", k)),
                    default=-1)  # fmt: skip
    return {"features": features, "depth": depth, "patch": patch, "grid": round(places**0.5)}
