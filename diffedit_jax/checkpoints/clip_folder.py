"""A whole CLIP, both towers: a transformers folder, or a file with OpenAI's own names.

Source: transformers CLIPModel.save_pretrained; openai/CLIP clip/model.py build_model, which reads
every size off the shapes.
"""

import dataclasses
from pathlib import Path

from diffedit_jax.checkpoints.files import read_json
from diffedit_jax.checkpoints.folder import read_component
from diffedit_jax.checkpoints.read import Weights, read
from diffedit_jax.checkpoints.tables.clip import (
    CLIP_TEXT,
    CLIP_VISION,
    OPENAI_VISION,
    from_open_clip,
    layer_count,
)
from diffedit_jax.errors import UserError

SCALARS = ("logit_scale", "input_resolution", "context_length", "vocab_size")
HEAD = 64  # channels of one attention head in every published CLIP


@dataclasses.dataclass
class ClipParts:
    """What a CLIP is made of; names are transformers' without the tower's prefix.

    Attributes:
      config: as transformers writes it, with "text_config" and "vision_config".
      pixels: the folder's preprocessor_config.json, {} where there is none.
    """

    where: str
    config: dict
    text: Weights
    vision: Weights
    pixels: dict


def read_clip(path: str | Path) -> ClipParts:
    """Reads a transformers folder or a state dict of OpenAI's.

    Raises: UserError for what is neither, and for networks without a vision transformer.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _folder(path)
    weights = {k: v for k, v in read(path).items() if k not in SCALARS}
    if "visual.class_embedding" not in weights:
        resnet = "visual.layer1.0.conv1.weight" in weights
        kind = "a CLIP with a ResNet, which is not read" if resnet else "no CLIP of OpenAI's"
        raise UserError(f"{path} is {kind}; give one with a vision transformer")
    return _openai(weights, str(path))


def _folder(path: Path) -> ClipParts:
    config = read_json(path / "config.json")
    if not ("text_config" in config and "vision_config" in config):
        raise UserError(f"{path} is no whole CLIP: its config needs text_config and vision_config")
    weights = read_component(path, None, lambda line: None)
    seen = ("vision_model.", "visual_projection.")
    vision = {k: v for k, v in weights.items() if k.startswith(seen)}
    text = {k: v for k, v in weights.items() if k not in vision and k not in SCALARS}
    pixels = path / "preprocessor_config.json"
    return ClipParts(
        str(path),
        config,
        CLIP_TEXT(text, str(path)),
        CLIP_VISION(vision, str(path)),
        read_json(pixels) if pixels.is_file() else {},
    )


def _openai(weights: Weights, where: str) -> ClipParts:
    seen = {k: v for k, v in weights.items() if k.startswith("visual.")}
    said = {k: v for k, v in weights.items() if k not in seen}
    vision = from_open_clip(OPENAI_VISION(seen, where), where, penultimate=False)
    text = from_open_clip(said, where, penultimate=False)
    try:
        vision["visual_projection.weight"] = vision["visual_projection.weight"].T
        return ClipParts(where, _sizes(text, vision), text, vision, {})
    except (KeyError, ValueError) as error:
        raise UserError(f"{where} is no CLIP of OpenAI's: {error!s:.80} is missing") from None


def _sizes(text: Weights, vision: Weights) -> dict:
    """The config that the shapes tell; eos_token_id 2 means the largest id, as OpenAI has it."""
    words, d = text["embeddings.token_embedding.weight"].shape
    width, _, patch, _ = vision["embeddings.patch_embedding.weight"].shape
    patches = vision["embeddings.position_embedding.weight"].shape[0] - 1
    saying = {
        **_tower(text, d),
        "vocab_size": words,
        "max_position_embeddings": text["embeddings.position_embedding.weight"].shape[0],
        "eos_token_id": 2,
    }
    size = patch * round(patches**0.5)
    seeing = {**_tower(vision, width), "patch_size": patch, "image_size": size}
    dim = text["text_projection.weight"].shape[0]
    return {"text_config": saying, "vision_config": seeing, "projection_dim": dim}


def _tower(weights: Weights, width: int) -> dict:
    return {
        "hidden_size": width,
        "intermediate_size": weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": layer_count(weights),
        "num_attention_heads": max(1, width // HEAD),
        "hidden_act": "quick_gelu",
    }
