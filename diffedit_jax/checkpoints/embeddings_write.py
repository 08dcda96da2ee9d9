"""Learned words out again, in the layouts that other programs read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffedit_jax.checkpoints.embeddings import ENCODERS, checked_word
from diffedit_jax.checkpoints.torch_write import write_torch
from diffedit_jax.checkpoints.write import whole_file, write_safetensors
from diffedit_jax.errors import UserError

LAYOUTS = {  # layout: ending of its files
    "diffusers": ".safetensors",
    "kohya": ".safetensors",
    "sdxl": ".safetensors",
    "original": ".pt",
    "a1111": ".pt",
}
PLACEHOLDER = 265  # the token of "*" in CLIP's vocabulary, which loaders ignore


def write_embedding(
    path: str | Path,
    words: Mapping[str, Any],
    *,
    layout: str = "diffusers",
    step: int | None = None,
) -> None:
    """Writes learned words, whole or not at all.

    Args:
      path: the file, ending in .safetensors ("diffusers", "kohya", "sdxl") or .pt ("original",
        "a1111"). A word is never used as a path.
      words: {word: vectors [n, d]}; for SDXL {word: (vectors [n, 768], vectors [n, 1280])}.
      layout: "diffusers" {word: [n, d]}; "kohya" {emb_params: [n, d]}; "sdxl" {clip_l, clip_g};
        "original" string_to_param of one or several words; "a1111" the same with "*" and a name.
        kohya and SDXL files do not hold the word: readers take the file's name for it.
      step: of the training, which AUTOMATIC1111 shows.

    Raises: UserError for several words where the layout holds one, an unknown layout, a path
    that does not end as the layout's files do, a disk that is full.

        write_embedding("cat-toy.safetensors", {"<cat-toy>": vectors})
    """
    path = Path(path)
    if layout not in LAYOUTS:
        raise UserError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}")
    if path.suffix != LAYOUTS[layout]:
        raise UserError(f"{path}: the layout {layout} is written as {LAYOUTS[layout]}")
    if not words or (layout != "original" and len(words) != 1):
        raise UserError(f"a file of the layout {layout} holds one word, not {len(words)}")
    found = {checked_word(word): _arrays(value, layout) for word, value in words.items()}
    with whole_file(path) as temporary:
        if path.suffix == ".pt":
            write_torch(temporary, _manager(found, layout, step))
        else:
            write_safetensors(temporary, _tensors(found, layout))


def _arrays(value: Any, layout: str) -> tuple[np.ndarray, ...]:
    given = value if isinstance(value, tuple | list) else (value,)
    arrays = tuple(np.atleast_2d(np.asarray(one, np.float32)) for one in given)
    wanted = len(ENCODERS) if layout == "sdxl" else 1
    if len(arrays) != wanted or len({len(array) for array in arrays}) != 1:
        raise UserError(f"the layout {layout} holds equally many vectors for {wanted} encoders")
    return arrays


def _tensors(words: Mapping[str, tuple[np.ndarray, ...]], layout: str) -> dict[str, np.ndarray]:
    ((word, arrays),) = words.items()
    names = {"diffusers": (word,), "kohya": ("emb_params",), "sdxl": ENCODERS}[layout]
    return dict(zip(names, arrays, strict=True))


def _manager(words: Mapping[str, tuple[np.ndarray, ...]], layout: str, step: int | None) -> dict:
    """string_to_param as a plain dictionary, which torch's own safe reader takes too."""
    if layout == "original":
        token = np.asarray(PLACEHOLDER, np.int64)
        tokens = dict.fromkeys(words, token)
        return {"string_to_token": tokens, "string_to_param": {w: v for w, (v,) in words.items()}}
    ((word, (vectors,)),) = words.items()
    facts = {"name": word, "step": step, "sd_checkpoint": None, "sd_checkpoint_name": None}
    return {"string_to_token": {"*": PLACEHOLDER}, "string_to_param": {"*": vectors}, **facts}
