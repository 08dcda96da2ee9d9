"""A table of renamings, and the little engine that applies one to the weights of a network."""

import re
from dataclasses import dataclass

import numpy as np

from diffedit_jax.errors import UserError

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Table:
    """From the key names met in files to the canonical ones (diffusers, transformers).

    Attributes:
      rename: (regex, replacement) pairs; all are tried, in order, on the whole key.
      ignored: regexes of buffers that carry nothing learned; the only keys that are left out.
      reshape: regexes of canonical keys whose 4-D weights [o, i, 1, 1] are 2-D in our trees.
    """

    rename: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    reshape: tuple[str, ...] = ()

    def __call__(self, weights: Weights, where: str = "the file") -> Weights:
        """Renames, squeezes and drops as the table says; everything else passes unchanged.

        Raises: UserError when two keys of the file mean the same weight.
        """
        found: Weights = {}
        for key, array in weights.items():
            if any(re.fullmatch(pattern, key) for pattern in self.ignored):
                continue
            name = self.name(key)
            if name in found:
                raise UserError(f"{where} holds {name!r} twice, once as {key!r}")
            found[name] = self._squeezed(name, array)
        return found

    def name(self, key: str) -> str:
        """The canonical name of one key."""
        for pattern, replacement in self.rename:
            key = re.sub(pattern, replacement, key)
        return key

    def _squeezed(self, name: str, array: np.ndarray) -> np.ndarray:
        square = array.ndim == 4 and array.shape[2:] == (1, 1)
        if square and any(re.fullmatch(pattern, name) for pattern in self.reshape):
            return array[:, :, 0, 0]
        return array


def substitute(weights: Weights, pairs: dict[str, str]) -> tuple[Weights, list[str]]:
    """Replaces the longest known prefix of each key; also gives the keys that have none.

    A prefix ends at a dot: {"out.0.": "conv_norm_out."} turns out.0.weight into
    conv_norm_out.weight.
    """
    found: Weights = {}
    unknown: list[str] = []
    for key, array in weights.items():
        name = _substituted(key, pairs)
        if name is None:
            unknown.append(key)
        else:
            found[name] = array
    return found, unknown


def _substituted(key: str, pairs: dict[str, str]) -> str | None:
    cut = key.rfind(".")
    while cut >= 0:
        prefix = key[: cut + 1]
        if prefix in pairs:
            return pairs[prefix] + key[cut + 1 :]
        cut = key.rfind(".", 0, cut)
    return None
