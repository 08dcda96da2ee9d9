"""Which part of the parameters is trained, and how it takes its place among the rest."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from ..errors import UserError

TOKENS = "text_encoder/embeddings/token_embedding/embedding"
POSITIONS = "text_encoder/embeddings/position_embedding/embedding"


@dataclasses.dataclass(frozen=True)
class Everything:
    """All parameters of all networks of the task."""

    def init(self, params: Any, key: Any) -> Any:
        """The parameters themselves, in float32."""
        return _float32(params)

    def join(self, params: Any, trained: Any) -> Any:
        """What is trained is the whole tree."""
        return trained


@dataclasses.dataclass(frozen=True)
class Paths:
    """The parameters whose "/"-joined path a pattern matches as a whole, such as "unet/.*"."""

    pattern: str

    def init(self, params: Any, key: Any) -> Any:
        """The chosen part of the tree, in float32. Raises UserError if the pattern finds none."""
        flat = flatten_dict(params, sep="/")
        chosen = {path: x for path, x in flat.items() if re.fullmatch(self.pattern, path)}
        if not chosen:
            raise UserError(f"no parameter has a name that matches {self.pattern!r}")
        return _float32(unflatten_dict(chosen, sep="/"))

    def join(self, params: Any, trained: Any) -> Any:
        """The tree with the chosen leaves replaced."""
        return unflatten_dict(flatten_dict(params) | flatten_dict(trained))


@dataclasses.dataclass(frozen=True)
class NewRows:
    """New rows of the token table: all that textual inversion trains, [n, d] and nothing else.

    The table must have the rows already (`words.grow`). Equal to training the whole table and
    putting every other row back after each step, because Adam is element-wise.

    Args:
      ids: which n rows.
      words: rows that the new ones start from, in turn; () starts from uniform [0, 1).
      initial: [n, d] start, instead of `words`.
      compat: "official" adds the position vector 0 to the start, as the original code does by
        reading the word through the whole embedding module.

    Source: Gal et al. 2022, section 3; rinongal/textual_inversion ldm/modules/embedding_manager.py;
    diffusers examples/textual_inversion/textual_inversion.py.
    """

    ids: tuple[int, ...]
    words: tuple[int, ...] = ()
    initial: Any = None
    compat: str = ""

    def init(self, params: Any, key: Any) -> Float[Array, "n d"]:
        """The rows at their start."""
        flat = flatten_dict(params, sep="/")
        table = flat[TOKENS].astype(jnp.float32)
        self._check(len(table))
        if self.initial is not None:
            return jnp.asarray(self.initial, jnp.float32)
        if not self.words:
            return jax.random.uniform(key, (len(self.ids), table.shape[1]))
        chosen = [self.words[i % len(self.words)] for i in range(len(self.ids))]
        shift = flat[POSITIONS][0] if self.compat == "official" else 0.0
        return table[jnp.asarray(chosen)] + shift

    def _check(self, count):
        """jax would neither read nor write a row that is not there, without a word."""
        wrong = [i for i in (*self.ids, *self.words) if not 0 <= i < count]
        if wrong:
            raise UserError(f"token {wrong[0]} is not one of the {count} rows of the token table")

    def join(self, params: Any, trained: Float[Array, "n d"]) -> Any:
        """The tree with the rows in the token table."""
        flat = flatten_dict(params, sep="/")
        rows = trained.astype(flat[TOKENS].dtype)
        table = flat[TOKENS].at[jnp.asarray(self.ids)].set(rows)
        return unflatten_dict(flat | {TOKENS: table}, sep="/")


ATTENTION = r"unet/.*/(to_[qkv]|to_out_0|add_[kv]_proj)"
TRANSFORMERS = r"unet/.*attentions_\d+/.*"
RESNETS = r"unet/.*(resnets|downsamplers|upsamplers)_\d+/.*"
TEXT_ATTENTION = r"text_encoder.*/self_attn/.*"
TEXT_LAYERS = r"text_encoder.*/layers_\d+/(self_attn|mlp)/.*"
TARGETS = {  # by the name that a config gives
    "attention": (ATTENTION,),  # diffusers' script
    "attention and text": (ATTENTION, TEXT_ATTENTION),
    "transformers": (TRANSFORMERS,),  # kohya's, UNet alone
    "transformers and text": (TRANSFORMERS, TEXT_LAYERS),
}


@dataclasses.dataclass(frozen=True)
class LowRank:
    """LoRA: kernel + (alpha / rank) down @ up, only down and up being trained.

    Of a convolution, down is [kh, kw, in, rank] and up [rank, out]: the convolution by `down`
    followed by a 1x1 one is the convolution by their product. The sum is made once per step, which
    costs less than a second path beside every layer as soon as a batch has more rows than `rank`.

    Args:
      rank: of linear layers and 1x1 convolutions.
      alpha: their scale times rank; None: rank.
      targets: patterns over the "/"-joined path of a module, or a name of TARGETS.
      convolutions: rank of larger kernels (kohya's conv_dim); 0 leaves them alone, whatever
        `targets` says, and resnets too unless `targets` names them.
      convolution_alpha: as alpha; None: `convolutions`.
      start: "gaussian": down ~ N(0, 1 / rank^2); "kaiming": uniform in +-1 / sqrt(fan in). up is 0.

    Source: Hu et al. 2021, section 4.1; peft LoraLayer.reset_lora_parameters; kohya-ss/sd-scripts
    networks/lora.py (targets, LoCon).
    """

    rank: int = 4
    alpha: float | None = None
    targets: str | tuple[str, ...] = "attention"
    convolutions: int = 0
    convolution_alpha: float | None = None
    start: str = "gaussian"

    def init(self, params: Any, key: Any) -> Any:
        """{module path: {"down", "up"}}, nested. Raises UserError if no module is a target."""
        chosen = self._kernels(params)
        if not chosen:
            raise UserError(f"no layer has a name that matches {self.targets!r}")
        keys = jax.random.split(key, len(chosen))
        pairs = zip(keys, chosen.items(), strict=True)
        found = {path: self._pair(k, x.shape) for k, (path, x) in pairs}
        return unflatten_dict(found, sep="/")

    def join(self, params: Any, trained: Any) -> Any:
        """The tree with every target's kernel changed, in float32 at least."""
        flat = flatten_dict(params, sep="/")
        for path, (down, up, alpha) in self.modules(trained).items():
            delta = jnp.matmul(down, up, precision="highest") * (alpha / up.shape[0])
            kernel = flat[f"{path}/kernel"]
            flat[f"{path}/kernel"] = kernel + delta  # in float32; a step lowers the sum
        return unflatten_dict(flat, sep="/")

    def modules(self, trained: Any) -> dict[str, tuple[Any, Any, float]]:
        """{module path: (down, up, alpha)}, the parts that a LoRA file holds."""
        flat = flatten_dict(trained, sep="/")
        paths = [path.removesuffix("/down") for path in flat if path.endswith("/down")]
        return {p: (d := flat[f"{p}/down"], flat[f"{p}/up"], self._alpha(d.shape)) for p in paths}

    def _kernels(self, params):
        targets = TARGETS.get(self.targets, self.targets)
        patterns = (targets,) if isinstance(targets, str) else targets
        patterns += (RESNETS,) if self.convolutions else ()
        flat = flatten_dict(params, sep="/")
        modules = {p.removesuffix("/kernel"): x for p, x in flat.items() if p.endswith("/kernel")}
        if not self.convolutions:
            modules = {p: x for p, x in modules.items() if not _is_wide(x.shape)}
        return {p: x for p, x in modules.items() if any(re.fullmatch(t, p) for t in patterns)}

    def _pair(self, key, shape):
        rank = self._rank(shape)
        if self.start == "gaussian":
            down = jax.random.normal(key, (*shape[:-1], rank)) / rank
        else:
            fan = jnp.prod(jnp.asarray(shape[:-1]))
            down = jax.random.uniform(key, (*shape[:-1], rank), minval=-1.0) / jnp.sqrt(fan)
        return {"down": down, "up": jnp.zeros((rank, shape[-1]))}

    def _rank(self, shape):
        return self.convolutions if _is_wide(shape) else self.rank

    def _alpha(self, shape):
        given = self.convolution_alpha if _is_wide(shape) else self.alpha
        return float(self._rank(shape) if given is None else given)


def _is_wide(shape):
    """Whether a kernel is of a convolution larger than 1x1."""
    return len(shape) == 4 and shape[0] * shape[1] > 1


def _float32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
