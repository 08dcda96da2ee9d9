"""CLIP: does a picture fit its text, did it change as the text did, are two pictures of one thing.

Source: Radford et al. 2021; torchmetrics multimodal/clip_score.py; timothybrooks/instruct-pix2pix
metrics/clip_similarity.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from diffedit_jax.bundles.loading import ASSETS, EMBEDDED
from diffedit_jax.bundles.tokenizer import Tokenizer
from diffedit_jax.checkpoints.clip_folder import ClipParts, read_clip
from diffedit_jax.errors import UserError
from diffedit_jax.metrics.network import Judge, existing, fill
from diffedit_jax.metrics.pictures import pair, unit, weights
from diffedit_jax.metrics.prepare import CLIP_FILES, CLIP_SQUASHED, INSTRUCT_PIX2PIX, Preparation
from diffedit_jax.models.clip import CLIPText, CLIPVision

PRESETS = {
    "clip": CLIP_FILES,
    "instruct_pix2pix": INSTRUCT_PIX2PIX,
    "instruct_pix2pix_corrected": CLIP_SQUASHED,
}
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


class Clip(struct.PyTreeNode):
    """Both towers of a CLIP, with its tokenizer and its way of preparing pictures."""

    text: Judge
    vision: Judge
    tokenizer: Any = struct.field(pytree_node=False)
    preparation: Preparation = struct.field(pytree_node=False)

    def texts(self, texts: Sequence[str]) -> Float[Array, "n d"]:
        """Embeddings of length 1; texts are cut at the network's length (77 tokens)."""
        return directions(self.text(jnp.asarray(self.tokenizer(list(texts))))[1]["projected"])

    def pictures(self, pictures: Any, preset: str | Preparation = "clip") -> Float[Array, "n d"]:
        """Embeddings of length 1 of pictures [n, h, w, 3], uint8 or [0, 1].

        Args:
          preset: "clip", the network's own preparation (through bytes, so without a gradient);
            "instruct_pix2pix", squashed and handed over in [-1, 1] as the released script does;
            "instruct_pix2pix_corrected", squashed, in [0, 1]; or a Preparation.
        """
        x = self._prepared(preset)(pictures)
        return directions(self.vision(x)[1]["projected"])

    def _prepared(self, preset: str | Preparation) -> Preparation:
        if isinstance(preset, Preparation):
            return preset
        if preset not in PRESETS:
            raise UserError(f"preset is {', '.join(PRESETS)}, not {preset!r:.40}")
        if preset == "clip":
            return self.preparation
        return PRESETS[preset].but(size=self.vision.module.image_size)


def load_clip(source: str | Path = "emoji", *, tokenizer: str | Path | None = None) -> Clip:
    """Loads a CLIP.

    Args:
      source: "emoji" (the embedded one, trained on rendered scenes of 64 pixels), a transformers
        CLIPModel folder, or a state dict with OpenAI's names.
      tokenizer: a folder with vocab.json and merges.txt; by default the source's own.

    Raises: UserError naming what is missing or does not fit.

        clip = load_clip("./clip-vit-large-patch14")
    """
    embedded = isinstance(source, str) and source in EMBEDDED
    path = ASSETS / source / "clip" if embedded else existing(source, "CLIP")
    parts = read_clip(path)
    text = CLIPText.from_config(parts.config, with_projection=True)
    vision = CLIPVision.from_config(parts.config, with_projection=True)
    ids = jax.ShapeDtypeStruct((1, text.max_position_embeddings), jnp.int32)
    pixels = jax.ShapeDtypeStruct((1, vision.image_size, vision.image_size, 3), jnp.float32)
    folder = Path(tokenizer) if tokenizer else path if path.is_dir() else path.parent
    return Clip(
        text=fill(text, parts.text, f"CLIP text of {parts.where}", ids),
        vision=fill(vision, parts.vision, f"CLIP vision of {parts.where}", pixels),
        tokenizer=Tokenizer(
            folder, length=text.max_position_embeddings, vocabulary=text.vocab_size
        ),
        preparation=_preparation(parts, vision.image_size),
    )


def _preparation(parts: ClipParts, size: int) -> Preparation:
    """What the folder's preprocessor_config.json says; CLIP's own at the network's size without."""
    said = parts.pixels
    resample = said.get("resample", 3)
    if resample not in RESAMPLE:
        raise UserError(f"{parts.where}: resample {resample} is not known; use 2 or 3")
    short = said.get("size", size)
    crop = said.get("crop_size", size)
    crop = crop["height"] if isinstance(crop, dict) else crop
    return CLIP_FILES.but(
        size=short["shortest_edge"] if isinstance(short, dict) else short,
        crop=crop if said.get("do_center_crop", True) else None,
        mean=tuple(said.get("image_mean", CLIP_FILES.mean)),
        std=tuple(said.get("image_std", CLIP_FILES.std)),
        method=RESAMPLE[resample],
        bytes=RESAMPLE[resample] == "bicubic",
    )


def directions(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """x / |x| along the last axis, 0 for 0."""
    square = jnp.square(x).sum(-1, keepdims=True)
    return x / jnp.sqrt(jnp.where(square == 0, 1.0, square))


def clip_score(
    pictures: Any, texts: str | Sequence[str], clip: Clip, mask: Any = None
) -> Float[Array, "n"]:
    """100 cos(picture, text), as torchmetrics and PIE-Bench have it.

    Args:
      pictures: [n, h, w, 3], uint8 or [0, 1]; one picture [h, w, 3] counts as n = 1.
      texts: one per picture, or one for all.
      mask: [h, w] or [n, h, w], 1 where the picture is kept; the rest is black (PIE-Bench's
        "edited part").

    Returns: [n]; NaN where the mask is empty.
    """
    x = _batch(pictures)
    found = 100 * jnp.sum(_texts(clip, texts, len(x)) * clip.pictures(_black(x, mask)), -1)
    return (
        found if mask is None else jnp.where(weights(mask, x.shape).any((1, 2, 3)), found, np.nan)
    )


def clip_similarity(a: Any, b: Any, clip: Clip, preset: str | Preparation = "clip") -> Array:
    """cos(picture, picture), [n]; for an edit and its source: how much of it is still there."""
    a, b = pair(_batch(a), _batch(b))
    return jnp.sum(clip.pictures(a, preset) * clip.pictures(b, preset), -1)


def directional_similarity(
    source: Any,
    edited: Any,
    source_texts: str | Sequence[str],
    texts: str | Sequence[str],
    clip: Clip,
    preset: str | Preparation = "clip",
) -> Float[Array, "n"]:
    """cos(I1 - I0, T1 - T0) of embeddings of length 1: does the picture change as the text does.

    Returns: [n] in [-1, 1]; 0 where a picture or its text did not change at all.
    Source: Gal et al. 2022; instruct-pix2pix metrics/clip_similarity.py, whose figures use
    preset="instruct_pix2pix".
    """
    source, edited = pair(_batch(source), _batch(edited))
    seen = clip.pictures(edited, preset) - clip.pictures(source, preset)
    said = _texts(clip, texts, len(source)) - _texts(clip, source_texts, len(source))
    return jnp.sum(directions(seen) * directions(said), -1)


def _batch(pictures: Any) -> Array:
    x = unit(pictures)
    if x.ndim > 4:
        raise UserError(f"pictures of {list(x.shape)}; give [n, h, w, 3]")
    return x[None] if x.ndim == 3 else x


def _texts(clip: Clip, texts: str | Sequence[str], count: int) -> Array:
    texts = [texts] * count if isinstance(texts, str) else list(texts)
    if len(texts) != count:
        raise UserError(f"{len(texts)} texts for {count} pictures; give one each, or one for all")
    return clip.texts(texts)


def _black(x: Array, mask: Any) -> Array:
    """Outside the mask black; PIE-Bench cuts to whole bytes, downwards."""
    return x if mask is None else jnp.floor(x * weights(mask, x.shape) * 255 + 1e-3) / 255
