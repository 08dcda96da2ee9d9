"""A learned style (InST) beside a bundle: its word for a text encoder, from pictures of it.

style = load_style("style.safetensors", model)
cond = told(model, ["a cat *"], [style.word], style.vector[None])
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
from diffedit_jax.bundles.stable_diffusion import Coder
from diffedit_jax.checkpoints.clip_folder import read_clip
from diffedit_jax.checkpoints.load import export, load
from diffedit_jax.checkpoints.style_file import StyleParts, read_style, write_style
from diffedit_jax.core import Cond
from diffedit_jax.errors import UserError
from diffedit_jax.images import prepared_example
from diffedit_jax.models import CLIPVision
from diffedit_jax.models.style import StyleWord, placed


class Style(struct.PyTreeNode):
    """What a style file holds, as a network.

    Attributes:
      coder: the inversion module with its parameters.
      word: what stands for the style in prompts.
      tokens: what the module reads of a picture: "pooled", one token, or "patches", all of them.
      tower: the CLIP whose image tower makes the tokens; "" if the file does not say.
      compat: "official" where pictures reach the tower as in the original code.
      vector, mean, deviation: the word [d], and the statistics [c] of the latents, of the pictures
        it was trained on; None if the file does not hold them.
    """

    coder: Coder
    word: str = struct.field(pytree_node=False)
    tokens: str = struct.field(pytree_node=False)
    tower: str = struct.field(pytree_node=False)
    compat: str = struct.field(pytree_node=False)
    vector: Any = None
    mean: Any = None
    deviation: Any = None

    def words_of(
        self, pictures: Sequence[np.ndarray], tower: str | Path | None = None
    ) -> Float[Array, "n d"]:
        """The word as square uint8 pictures [h, w, 3] say it, read by a CLIP or the file's own.

        Raises: UserError where neither is known, and for a CLIP of another width.
        """
        if not (tower or self.tower):
            raise UserError(
                "the style file does not say which CLIP read the painting; name its folder with "
                "tower=... (the original's is openai/clip-vit-large-patch14)"
            )
        coder = load_tower(tower or self.tower)
        found = image_tokens(coder, pictures, tokens=self.tokens, compat=self.compat)
        made, wanted = found.shape[-1], self.coder.module.features
        if made != wanted:
            raise UserError(
                f"the image tower gives {made} channels, the style was trained with {wanted}; "
                "name the CLIP that it was trained with (tower=...)"
            )
        return self.coder(found)[:, 0]


def load_style(path: str | Path, model: Any) -> Style:
    """The style of a file, checked against a bundle.

    Raises: UserError for a file that is none, and for one made for another base model.
    """
    parts = read_style(path)
    width, made = model_width(model), parts.sizes[2]
    if made != width:
        raise UserError(
            f"{path}: its word has {made} channels, the text encoder {width}; it was made for "
            "another base model"
        )
    kept = {name: jnp.asarray(x, jnp.float32) for name, x in parts.kept.items()}
    if kept and len(kept["mean"]) != model.latent_channels:
        raise UserError(f"{path}: it was made for latents of {len(kept['mean'])} channels")
    coder = _coder(parts, str(path))
    return Style(coder, parts.word, parts.tokens, parts.tower, parts.compat, **kept)


def save_style(path: str | Path, style: Style) -> None:
    """Writes a style as `load_style` reads it."""
    kept = {name: getattr(style, name) for name in ("vector", "mean", "deviation")}
    told = {name: getattr(style, name) for name in ("word", "tokens", "tower", "compat")}
    kept = {name: np.asarray(jax.device_get(x)) for name, x in kept.items() if x is not None}
    weights = export(jax.device_get(style.coder.params))
    write_style(path, StyleParts(weights, heads=style.coder.module.heads, kept=kept, **told))


def model_width(model: Any) -> int:
    """Channels of a word. Raises: UserError for a model without one text encoder (SDXL has two)."""
    if len(model.texts) != 1:
        count = len(model.texts)
        raise UserError(f"a style is for models with one text encoder, this one has {count}")
    return model.texts[0].module.hidden_size


def _coder(parts: StyleParts, where: str) -> Coder:
    features, inner, width = parts.sizes
    module = StyleWord(features, width, inner, parts.heads)
    return Coder(params=_filled(module, parts.weights, where, (1, 1, features)), module=module)


def _filled(module: Any, weights: Any, where: str, example: tuple[int, ...]) -> dict:
    """A network's parameters from canonical names, strictly checked."""
    shaped = jax.ShapeDtypeStruct(example, jnp.float32)
    expected = jax.eval_shape(lambda x: module.init(jax.random.key(0), x)["params"], shaped)
    return load(expected, dict(weights), where)


def load_tower(source: str | Path) -> Coder:
    """The image tower of a CLIP: "emoji", a transformers folder, or a file with OpenAI's names.

    Raises: UserError for what is no CLIP with an image tower.
    """
    embedded = isinstance(source, str) and source in EMBEDDED
    path = ASSETS / source / "clip" if embedded else Path(source).expanduser()
    if not path.exists():
        raise UserError(f"CLIP: {path} does not exist; name a folder or a file (tower=...)")
    parts = read_clip(path)
    module = CLIPVision.from_config(parts.config, with_projection=True)
    example = (1, module.image_size, module.image_size, 3)
    params = _filled(module, parts.vision, f"CLIP vision of {parts.where}", example)
    return Coder(params=params, module=module)


def image_tokens(
    tower: Coder, pictures: Sequence[np.ndarray], *, tokens: str = "pooled", compat: str = ""
) -> Float[Array, "n tokens d"]:
    """Image tokens of uint8 pictures [h, w, 3], each of length 1; the pooled one is the first.

    visual_projection(post_layernorm(x)) / |...| of the last state x, of its class token alone
    ("pooled": CLIP's image embedding) or of all ("patches").

    Args:
      compat: "official" hands the tower what the original code does by casting pictures in
        [-1, 1] to bytes: 255 where a channel was 0, 1 where it was 255, and 0 elsewhere.

    Source: zyxElsa/InST ldm/modules/encoders/modules.py; transformers' CLIPModel.
    """
    seen = [cast(one) if compat == "official" else one for one in pictures]
    size = tower.module.image_size
    pixels = np.stack([prepared_example(one, size, crop=True) for one in seen])
    return _tokens(tower, jnp.asarray(pixels), tokens == "pooled")


def cast(pixels: np.ndarray) -> np.ndarray:
    """What torch's cast of x / 127.5 - 1 to uint8 makes of a picture, on x86."""
    return np.select([pixels == 0, pixels == 255], [np.uint8(255), np.uint8(1)], np.uint8(0))


def _tokens(tower: Coder, pixels, pooled: bool):
    states, _ = tower(pixels)
    found = tower(states[:, :1] if pooled else states, method="projected")
    return found / jnp.linalg.norm(found, axis=-1, keepdims=True)


def told(
    model: Any, prompts: Sequence[str], words: Sequence[str], vectors: Float[Array, "n d"]
) -> Cond:
    """The condition of prompts in which words[i] is the vector vectors[i]; leaves begin with [n].

    Raises: UserError for a word that is not one token of the model.
    """
    marks = np.asarray([model.tokenizers[0].token(word) for word in words], np.int32)
    ids = model.tokenize(prompts)
    return Cond(text=_encoded(model.texts[0], jnp.asarray(ids), jnp.asarray(marks), vectors))


@jax.jit
def _encoded(text: Coder, ids, marks, words):
    vectors = text.params["embeddings"]["token_embedding"]["embedding"][ids]
    return text(ids, placed(vectors, ids, marks[:, None], words))[0]
