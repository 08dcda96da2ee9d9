"""Files of a learned style (InST): our own .safetensors, and the original's embeddings.pt.

Ours: the module's weights under the original's names behind "attention.", what the training's
pictures gave ("vector" [d], the word itself; "mean" and "deviation" [c] of their latents), and in
the header {"word", "tokens", "heads", "tower", "compat"}, all as text.
The original: {"string_to_token": {"*": id}, "attention": a whole pickled torch module}.
Source: zyxElsa/InST ldm/modules/embedding_manager.py (save, load).
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from diffedit_jax.checkpoints.files import map_file
from diffedit_jax.checkpoints.read import Weights
from diffedit_jax.checkpoints.safetensors_file import (
    is_safetensors,
    read_metadata,
    read_safetensors,
)
from diffedit_jax.checkpoints.torch_file import read_torch
from diffedit_jax.checkpoints.write import whole_file, write_safetensors
from diffedit_jax.errors import UserError

PREFIX = "attention."
KEPT = ("vector", "mean", "deviation")
TOKENS = ("pooled", "patches")
COMPATS = ("", "official")
CLASSES = (  # of the pickled module; their fields are read, nothing of them runs
    "ldm.modules.attention.CrossAttention",
    "ldm.modules.embedding_manager.Attentions",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.dropout.Dropout",
    "torch.nn.modules.linear.Linear",
)
_HEADS = 8  # of the original, whose files do not say it


@dataclasses.dataclass(frozen=True)
class StyleParts:
    """What a style file holds.

    Attributes:
      weights: the inversion module's, in the original's names (attn1.to_q.weight, ...).
      word: what stands for the style in prompts.
      tokens: what the module reads of a picture, "pooled" or "patches".
      heads: of its attention.
      tower: the CLIP whose image tower made the tokens, "" if the file does not say.
      compat: "official" where pictures reach the tower as in the original code.
      kept: {"vector" [d], "mean" [c], "deviation" [c]} of the pictures it was trained on, or {}.
    """

    weights: Weights
    word: str = "*"
    tokens: str = "pooled"
    heads: int = _HEADS
    tower: str = ""
    compat: str = ""
    kept: Weights = dataclasses.field(default_factory=dict)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(channels of an image token, of all heads together, of a word)."""
        inner, features = self.weights["attn1.to_q.weight"].shape
        return features, inner, len(self.weights["net.1.weight"])


def read_style(path: str | Path) -> StyleParts:
    """Reads a style file of either kind, told apart by its content; nothing in it is executed.

    Raises: UserError, one line that names the file and what is wrong with it.

        read_style("style.safetensors").word     # "*"
    """
    path = Path(path).expanduser()
    head = bytes(map_file(path)[:16])
    parts = _ours(path) if is_safetensors(head) else _original(path)
    _check(parts, path)
    return parts


def write_style(path: str | Path, parts: StyleParts) -> None:
    """Writes a style file of ours, whole or not at all."""
    own = {f"{PREFIX}{name}": np.asarray(x, np.float32) for name, x in parts.weights.items()}
    kept = {name: np.asarray(x, np.float32) for name, x in parts.kept.items()}
    names = ("word", "tokens", "heads", "tower", "compat")
    facts = {name: str(getattr(parts, name)) for name in names}
    with whole_file(Path(path)) as temporary:
        write_safetensors(temporary, own | kept, {"kind": "diffedit style", **facts})


def _ours(path: Path) -> StyleParts:
    found, facts = read_safetensors(path), read_metadata(path)
    weights = {k.removeprefix(PREFIX): x for k, x in found.items() if k.startswith(PREFIX)}
    kept = {k: found[k] for k in KEPT if k in found}
    if not weights or len(weights) + len(kept) != len(found):
        raise _no_style(path, f"it holds {sorted(found)[0]!r:.80}" if found else "it is empty")
    heads = facts.get("heads", "")
    if not heads.isdecimal() or len(heads) > 4:
        raise _no_style(path, "its header does not say how many heads there are")
    said = {name: facts.get(name, "") for name in ("word", "tokens", "tower", "compat")}
    return StyleParts(weights, heads=int(heads), kept=kept, **said)


def _original(path: Path) -> StyleParts:
    found = read_torch(path, classes=CLASSES)
    module = found.get("attention") if isinstance(found, dict) else None
    words = found.get("string_to_token") if isinstance(found, dict) else None
    if not isinstance(module, dict) or not isinstance(words, dict) or len(words) != 1:
        raise _no_style(path, "it needs string_to_token of one word, and attention")
    weights = _state(module, path)
    return StyleParts(weights, word=str(next(iter(words))), compat="official")


def _state(module: Any, path: Path, prefix: str = "") -> Weights:
    """The parameters of a pickled module and of those inside it, by their dotted names."""
    parts = [module.get(name) if isinstance(module, dict) else None
             for name in ("_parameters", "_modules")]  # fmt: skip
    if not all(isinstance(part, dict) for part in parts):
        raise _no_style(path, "its attention is no module")
    own, inner = parts
    found = {f"{prefix}{name}": x for name, x in own.items() if x is not None}
    if not all(isinstance(x, np.ndarray) for x in found.values()):
        raise _no_style(path, "its attention holds something that is no tensor")
    for name, one in inner.items():
        found |= _state(one, path, f"{prefix}{name}.")
    return found


def _check(parts: StyleParts, path: Path) -> None:
    """What the shapes and the header must say before a network can be made of them."""
    ranks = {"attn1.to_q.weight": 2, "net.1.weight": 2}
    for name, rank in ranks.items():
        if name not in parts.weights or parts.weights[name].ndim != rank:
            raise _no_style(path, f"{name} is missing or no matrix")
    inner = parts.sizes[1]
    if parts.heads < 1 or not inner or inner % parts.heads:
        raise _no_style(path, f"{inner} channels do not divide into {parts.heads} heads")
    if parts.tokens not in TOKENS or parts.compat not in COMPATS or not parts.word:
        raise _no_style(path, "its header is damaged")
    _check_kept(parts, path)


def _check_kept(parts: StyleParts, path: Path) -> None:
    kept = parts.kept
    if kept and set(kept) != set(KEPT):
        raise _no_style(path, f"{', '.join(n for n in KEPT if n not in kept)} is missing")
    for name, x in kept.items():
        if x.ndim != 1 or x.dtype.kind not in "f" or not np.isfinite(x).all():
            raise _no_style(path, f"{name} is no vector of finite numbers")
    if kept and len(kept["vector"]) != parts.sizes[2]:
        raise _no_style(path, "its vector is not as wide as the module's words")


def _no_style(path: Path, why: str) -> UserError:
    return UserError(f"{path} is no style file: {why}; train one with train/inst.py")
