"""Learned words (textual inversion): every layout that people have, read into one form.

    {word: (vectors for the first text encoder [n, d], for the second if there are two)}

Source: rinongal/textual_inversion embedding_manager.py (save); AUTOMATIC1111
modules/textual_inversion/textual_inversion.py (create_embedding_from_data); diffusers
loaders/textual_inversion.py; kohya-ss/sd-scripts train_textual_inversion.py (emb_params);
diffusers examples/textual_inversion_flax (.npy).
"""

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from diffedit_jax.checkpoints.embedding_image import read_embedding_image
from diffedit_jax.checkpoints.files import map_file
from diffedit_jax.checkpoints.numpy_file import MAGIC, read_pickled_arrays
from diffedit_jax.checkpoints.safetensors_file import is_safetensors, read_safetensors
from diffedit_jax.checkpoints.torch_file import read_torch
from diffedit_jax.errors import UserError

Vectors = tuple[np.ndarray, ...]
NAMELESS = ("emb_params", "*")  # what files write where they have no word: kohya, AUTOMATIC1111
ENCODERS = ("clip_l", "clip_g")  # SDXL's two text encoders, in the order of a bundle
MOST_VECTORS = 75  # tokens that a prompt has room for
WORD_LIMIT = 100  # characters
PICTURES = (b"\x89PNG", b"RIFF", b"\xff\xd8\xff")


def read_embedding(path: str | Path) -> dict[str, Vectors]:
    """Reads a file of learned words, told apart by its content; nothing in it is executed.

    Layouts: diffusers (.safetensors, .bin, also steps files and 1-D vectors), the original
    embeddings.pt (also of several words), AUTOMATIC1111 (.pt, and PNG or WebP pictures), kohya
    (emb_params), SDXL (clip_l and clip_g), Flax (.npy). A word that the file does not name is
    named after the file.

    Returns: {word: float32 [n, d] per text encoder}.
    Raises: UserError, one line that names the file and what is wrong with it.

        read_embedding("learned_embeds.safetensors")       # {"<cat-toy>": (array [1, 768],)}
    """
    path = Path(path)
    found = _named(_content(path), path)
    if not found:
        raise UserError(f"{path} holds no learned word")
    return {word: tuple(_vectors(v, word, path) for v in said) for word, said in found.items()}


def _content(path: Path) -> Any:
    head = bytes(map_file(path)[:16])
    if is_safetensors(head):
        return read_safetensors(path)
    if head.startswith(MAGIC):
        return read_pickled_arrays(path)
    if head.startswith(PICTURES):
        return read_embedding_image(path)
    return read_torch(path)


def _named(found: Any, path: Path) -> dict[str, Vectors]:
    """The words of a file's content, whichever layout it has."""
    if not isinstance(found, dict):
        raise UserError(f"{path} is no file of learned words: it holds a {type(found).__name__}")
    if "string_to_param" in found:
        return _of_the_manager(found, path)
    if found.keys() == set(ENCODERS):
        return {path.stem: tuple(found[name] for name in ENCODERS)}
    wrong = [name for name, value in found.items() if not isinstance(value, np.ndarray)]
    ends = (".weight", ".bias", ".alpha")  # a LoRA's or a network's own
    large = [k for k, value in found.items() if np.ndim(value) > 2 or str(k).endswith(ends)]
    if wrong or large or len(found) > MOST_VECTORS:
        first = [*wrong, *large, *found][0]
        raise UserError(f"{path} is no file of learned words: it holds {first!r:.80}")
    return {_word(name, path): (value,) for name, value in found.items()}


def _of_the_manager(found: dict, path: Path) -> dict[str, Vectors]:
    """The original layout: {"string_to_param": {placeholder: [n, d]}}, perhaps with a "name".

    torch's ParameterDict keeps its tensors under "_parameters".
    """
    said = found["string_to_param"]
    said = said.get("_parameters", said) if isinstance(said, dict) else None
    if not said or not all(isinstance(value, np.ndarray) for value in said.values()):
        raise UserError(f"{path} is damaged: its string_to_param holds no tensors by name")
    name = found.get("name")
    if len(said) == 1 and isinstance(name, str) and name:
        return {name: tuple(said.values())}
    return {str(word): (value,) for word, value in said.items()}


def _word(name: Any, path: Path) -> str:
    return path.stem if name in NAMELESS else str(name)


def _vectors(array: np.ndarray, word: str, path: Path) -> np.ndarray:
    """float32 [n, d], finite, of [n, d] or [d]."""
    if array.ndim not in (1, 2) or array.dtype.kind not in "fV" or not array.size:
        raise UserError(f"{path}: {word!r} is {array.dtype} {list(array.shape)}, no vectors")
    found = np.atleast_2d(array).astype(np.float32)
    if len(found) > MOST_VECTORS:
        raise UserError(
            f"{path}: {word!r} has {len(found)} vectors; a prompt has room for {MOST_VECTORS}"
        )
    if not np.isfinite(found).all():
        raise UserError(f"{path}: {word!r} holds NaN or infinity")
    return found


def checked_word(word: str) -> str:
    """A word that can stand in a prompt by itself.

    Raises: UserError for an empty or very long one, white space, control characters.
    """
    bad = [c for c in word if c.isspace() or unicodedata.category(c)[0] == "C"]
    if not word or bad or len(word) > WORD_LIMIT:
        raise UserError(
            f"{word!r:.60} cannot be a word of a prompt (no spaces, 1 to {WORD_LIMIT} characters); "
            "give the embedding another name (FILE:NAME)"
        )
    return word
