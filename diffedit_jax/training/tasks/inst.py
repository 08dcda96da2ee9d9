"""InST: a module learns to say, from a painting's image tokens, the word that draws its style."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from ...bundles.adapters import TABLE
from ...bundles.stable_diffusion import Coder
from ...bundles.style import Style, image_tokens, load_tower, model_width, save_style
from ...checkpoints.style_file import COMPATS, TOKENS
from ...core import Cond
from ...errors import UserError
from ...images import read
from ...images.frame import resized
from ...methods.inst import statistics
from ...models.style import StyleWord, fresh, placed
from ..agree import on_host
from ..pictures import read_folder
from ..selections import NewRows, Paths
from ..subject import Latents, captions, latents_of, sentences, subject_batches
from ..task import Task
from .shared import frozen, limits_of, objective_of


@dataclasses.dataclass(frozen=True)
class Paintings(Latents):
    """Latents of the style's pictures, and what the image tower makes of them.

    Attributes:
      tokens: [n, 2, tokens, d]; the second of the two is of the mirrored picture.
      files: the n pictures.
    """

    tokens: np.ndarray
    files: tuple[Path, ...]

    def arrays(self) -> dict[str, np.ndarray]:
        """{name in a batch: [n, 2, ...]}."""
        return {**super().arrays(), "tokens": self.tokens}


def paintings(model: Any, config: Any, data: Path | None) -> Paintings:
    """The pictures of a folder, squashed to the model's square, as latents and image tokens.

    config: tower, tokens, compat, skip_broken.
    Source: zyxElsa/InST ldm/data/personalized.py (bicubic, no crop).
    """
    ways = dict(squared=_squashed, skip_broken=config.skip_broken)
    files, pictures = read_folder(data, model.size, **ways)
    tower = load_tower(config.tower)
    both = np.stack([pictures, pictures[:, :, ::-1]], axis=1)
    seen = image_tokens(tower, list(both.reshape(-1, *pictures.shape[1:])),
                        tokens=config.tokens, compat=config.compat)  # fmt: skip
    latents = latents_of(model, pictures)
    tokens = np.asarray(seen).reshape(len(pictures), 2, *seen.shape[1:])
    return Paintings(latents.mean, latents.deviation, tokens, tuple(files))


def _squashed(file: Path, size: int) -> np.ndarray:
    return resized(read(file).pixels, (size, size), "BICUBIC")


def fresh_style(model: Any, config: Any, shown: Paintings) -> Style:
    """The module before training, from config.seed.

    config: word, tower, tokens, compat, heads, inner (channels of all heads), dropout, seed.
    Raises: UserError for settings that make no module.
    """
    if config.tokens not in TOKENS or config.compat not in COMPATS:
        raise UserError(f"tokens is one of {', '.join(TOKENS)}, and compat 'official' or nothing")
    if config.heads < 1 or config.inner % config.heads:
        raise UserError(f"inner={config.inner} does not divide into {config.heads} heads")
    model.tokenizers[0].token(config.word)  # refuses what is not one token
    sizes = (shown.tokens.shape[-1], model_width(model), config.inner, config.heads)
    module = StyleWord(*sizes, dropout=config.dropout)
    coder = Coder(params=fresh(module, jax.random.key(config.seed)), module=module)
    return Style(coder, config.word, config.tokens, config.tower, config.compat)


def style_task(model: Any, config: Any, style: Style) -> Task:
    """The module learns; text encoder, UNet, autoencoder and image tower stay as they are.

    Source: Zhang et al. 2023; zyxElsa/InST configs/stable-diffusion/v1-finetune.yaml.
    """
    word = model.tokenizers[0].token(style.word)
    condition = style_condition(model.texts[0].module, style.coder.module, word)
    params, chosen = {**frozen(model), "style": style.coder.params}, Paths("style/.*")
    return Task(
        "inst", params, objective_of(model, config), chosen, condition, limits=limits_of(model)
    )


def style_condition(text: Any, module: StyleWord, placeholder: int) -> Callable:
    """(params, batch, key) -> Cond of "ids" [n, tokens] with the word that "tokens" [n, t, d] say.

    The key is of the module's dropout; without one there is none.
    """

    def condition(params, batch, key):
        rngs = {} if key is None else {"dropout": key}
        own, ids = {"params": params["style"]}, batch["ids"]
        said = module.apply(own, batch["tokens"], key is not None, rngs=rngs)
        table = flatten_dict(params["text_encoder"])[TABLE]
        vectors = placed(table[ids], ids, placeholder, said[:, 0])
        return Cond(text=text.apply({"params": params["text_encoder"]}, ids, vectors)[0])

    return condition


def style_batches(model: Any, config: Any, shown: Paintings) -> Callable[[int], dict]:
    """Batches of the pictures, mirrored at random, each with one of its sentences.

    config: word, templates ("{}": the word alone), batch, seed, flip.
    """
    said = captions(shown.files, config.word)
    if said is None:
        said = [sentences(config.templates, config.word)] * len(shown.tokens)
    ids = [model.tokenize(list(texts)) for texts in said]
    return subject_batches(shown, ids, config.batch, config.seed, config.flip)


def with_trained(style: Style, trained: Any, shown: Paintings) -> Style:
    """The trained style, with what it says of the very pictures, on average."""
    coder = style.coder.replace(params=on_host(trained["style"]))
    word = coder(jnp.asarray(shown.tokens[:, 0]))[:, 0].mean(0)
    mean, deviation = statistics(jnp.asarray(shown.mean[:, 0]))
    return style.replace(coder=coder, vector=word, mean=mean.mean(0), deviation=deviation.mean(0))


def prompts(config: Any) -> dict[str, tuple[str, ...]]:
    """What a look at the run draws: the word in its templates."""
    return {"style": sentences(config.templates, config.word)}


def styled(style: Style, shown: Paintings) -> Callable:
    """(model, trained) -> the model whose word is what the module says of its pictures by then."""

    def now(model, trained):
        place = NewRows((model.tokenizers[0].token(style.word),))
        params = place.join(frozen(model), with_trained(style, trained, shown).vector[None])
        return model.replace(texts=(model.texts[0].replace(params=params["text_encoder"]),))

    return now


def write_style(path: Path, style: Style, trained: Any, shown: Paintings) -> None:
    """style.safetensors, for `diffedit edit --method inst --style`."""
    save_style(path, with_trained(style, trained, shown))
