"""Personalised models: LoRAs added to a bundle's weights, learned words to its vocabulary.

Both are pure: a bundle goes in, another comes out, and its `origin` says which files were used.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffedit_jax.checkpoints.embeddings import Vectors, checked_word, read_embedding
from diffedit_jax.checkpoints.lora import Layer, delta, lora_file, read_lora
from diffedit_jax.checkpoints.tables.names import key_of, path_of, to_ours, torch_shape
from diffedit_jax.errors import UserError
from diffedit_jax.recipe import digest

TABLE = path_of("embeddings.token_embedding.weight")
BASES = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 1280: "SDXL's second encoder"}


def with_lora(model: Any, path: str | Path, weight: float = 1.0) -> Any:
    """The model with a LoRA merged in: W + weight alpha / r up @ down.

    Args:
      path: a file of any layout that `read_lora` reads, or an adapter folder.
      weight: how strongly; 0 changes nothing, negative ones subtract.

    Raises: UserError for files that are missing, damaged or made for another base model.
    """
    if not isinstance(weight, int | float) or not math.isfinite(weight):
        raise UserError(f"the weight of a LoRA must be a number, not {weight!r:.40}")
    file = lora_file(Path(path).expanduser())
    found = merged(model, read_lora(file, module_shapes(model)), weight)
    return _noted(found, "lora", {**_file(file), "weight": float(weight)})


def merged(model: Any, layers: Mapping[str, Layer], weight: float = 1.0) -> Any:
    """The same for layers in memory, {module: Layer}; `origin` is left as it is."""
    named = dict(zip(_text_names(model), model.texts, strict=True))
    for component, coder in {"unet": model.denoiser, **named}.items():
        prefix = f"{component}."
        own = {m.removeprefix(prefix): v for m, v in layers.items() if m.startswith(prefix)}
        if not own:
            continue
        coder = coder.replace(params=_added(coder.params, own, weight))
        if component == "unet":
            model = model.replace(denoiser=coder)
        else:
            named[component] = coder
    return model.replace(texts=tuple(named.values()))


def _added(params: Mapping, layers: Mapping[str, Layer], weight: float) -> dict:
    """Parameters with every layer's delta added in float32; placement and dtype are kept."""
    flat = dict(flatten_dict(params))
    for module, layer in layers.items():
        place = path_of(f"{module}.weight")
        old = flat[place]
        change = delta(layer, torch_shape(old.shape, place[-1]))
        new = np.asarray(old, np.float32) + np.float32(weight) * to_ours(change, place[-1])
        flat[place] = _placed(new, old)
    return unflatten_dict(flat)


def _placed(new: np.ndarray, old: Any) -> Any:
    """A host array with another's dtype, on its device or mesh."""
    array = jnp.asarray(new, old.dtype)
    return jax.device_put(array, old.sharding) if hasattr(old, "sharding") else array


def module_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """{"unet.conv_in": shape of its weight in torch}: all that a LoRA can change."""
    named = dict(zip(_text_names(model), model.texts, strict=True))
    found = {}
    for component, coder in {"unet": model.denoiser, **named}.items():
        for place, leaf in flatten_dict(coder.params).items():
            if place[-1] == "kernel" and leaf.ndim in (2, 4):
                module = key_of(place).removesuffix(".weight")
                found[f"{component}.{module}"] = torch_shape(leaf.shape, place[-1])
    return found


def _text_names(model: Any) -> list[str]:
    return ["text_encoder", "text_encoder_2"][: len(model.texts)]


def with_embedding(model: Any, path: str | Path, token: str | Sequence[str] | None = None) -> Any:
    """The model with the learned words of a file, which prompts can then use.

    A word of several vectors is written once: the tokenizer spells it out.

    Args:
      path: a file of any layout that `read_embedding` reads.
      token: what to call the word instead; several, in the file's order, for files of several
        (a sequence, or one text with commas).

    Raises: UserError for a word that the vocabulary has already, and for vectors of another
    width, which were made for another base model.
    """
    path = Path(path).expanduser()
    words = _renamed(read_embedding(path), token, path)
    found = extended(model, words, str(path))
    return _noted(found, "embedding", {**_file(path), "token": ",".join(words)})


def extended(model: Any, words: Mapping[str, Vectors], where: str = "words") -> Any:
    """The same for vectors in memory, {word: float32 [n, d] per text encoder}."""
    for word, vectors in words.items():
        _refuse_width(model, checked_word(word), vectors, where)
    counts = {word: len(vectors[0]) for word, vectors in words.items()}
    tokenizers = tuple(tokenizer.extended(counts) for tokenizer in model.tokenizers)
    texts, configs = [], model.configs
    for i, (name, coder) in enumerate(zip(_text_names(model), model.texts, strict=True)):
        rows = np.concatenate([vectors[i] for vectors in words.values()])
        texts.append(_longer(coder, rows))
        configs.get(name, {})["vocab_size"] = texts[-1].module.vocab_size
    written = json.dumps(configs, sort_keys=True)
    return model.replace(texts=tuple(texts), tokenizers=tokenizers, configs_json=written)


def _longer(coder: Any, rows: np.ndarray) -> Any:
    """A text encoder whose token table has more rows at its end."""
    flat = dict(flatten_dict(coder.params))
    table = flat[TABLE]
    flat[TABLE] = _placed(np.concatenate([np.asarray(table, np.float32), rows]), table)
    module = coder.module.clone(vocab_size=len(flat[TABLE]))
    return coder.replace(params=unflatten_dict(flat), module=module)


def _renamed(words: dict[str, Vectors], token, path: Path) -> dict[str, Vectors]:
    if token is None:
        return words
    names = token.split(",") if isinstance(token, str) else list(token)
    if len(names) != len(words) or len(set(names)) != len(names):
        held = ", ".join(repr(word) for word in words)
        raise UserError(f"{path} holds {len(words)} words ({held}), not {len(names)} to rename")
    return dict(zip(names, words.values(), strict=True))


def _refuse_width(model, word: str, vectors: Vectors, where: str) -> None:
    if len(vectors) != len(model.texts):
        raise UserError(
            f"{where}: {word!r} is of a model with {len(vectors)} text encoders (SDXL has 2), this "
            f"one has {len(model.texts)}; it was made for another base model"
        )
    for array, coder in zip(vectors, model.texts, strict=True):
        width = coder.module.hidden_size
        if array.shape[1] != width:
            made = f" ({BASES[array.shape[1]]})" if array.shape[1] in BASES else ""
            raise UserError(
                f"{where}: {word!r} has {array.shape[1]} channels{made}, the text encoder {width}; "
                "it was made for another base model"
            )


def _noted(model, kind: str, entry: dict) -> Any:
    """The model with a file added to its origin, for recipes."""
    origin = model.origin
    origin[kind] = [*origin.get(kind, []), entry]
    return model.replace(origin_json=json.dumps(origin, sort_keys=True))


def _file(path: Path) -> dict[str, str]:
    return {"path": str(path), "sha256": digest(path)}
