"""From a model's parts (weights and configs) to networks with parameters, strictly checked."""

import functools
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffedit_jax.checkpoints.load import load
from diffedit_jax.checkpoints.parts import Parts
from diffedit_jax.checkpoints.read import Weights
from diffedit_jax.errors import UserError
from diffedit_jax.models import AutoencoderKL, CLIPText, Exemplar, UNet

# The largest values that a network of this kind could have; a config beyond them is a mistake,
# and would take forever to trace.
LIMITS = {
    "block_out_channels": 16,
    "down_block_types": 16,
    "layers_per_block": 32,
    "num_hidden_layers": 200,
    "transformer_layers_per_block": 64,
}
LISTS = ("block_out_channels", "down_block_types")  # of these, only the length is limited
KINDS = {"unet": UNet, "vae": AutoencoderKL, "image_encoder": Exemplar}  # texts: CLIPText
SAMPLES = 2**16  # bytes looked at, at either end of each tensor, to tell two models apart


def build(
    parts: Parts,
    name: str,
    *,
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
    place: Callable[[np.ndarray], Any] = jnp.asarray,
    **options: Any,
) -> tuple[Any, dict]:
    """(module, params) of one component of a model: "unet", "vae", "text_encoder(_2)", ...

    Args:
      dtype: what the network computes in; `options` are further fields of the module.
      param_dtype: what the parameters are kept in.
      place: puts one host array on its device.

    Raises: UserError for a config that describes no network, and for weights that do not fit it.
    """
    where = f"{name} of {parts.where}"
    config, weights = parts.configs.get(name), parts.weights.get(name)
    if config is None or weights is None:
        raise UserError(f"{parts.where} has no {name}")
    module = make_module(name, config, weights, where, dtype=dtype, **options)
    expected = expected_params(name, module, where)
    return module, load(expected, weights, where, dtype=param_dtype, place=place)


def make_module(name: str, config: Mapping, weights: Weights, where: str, **options: Any) -> Any:
    """The linen module of a component's config."""
    _check_limits(config, where)
    kind = KINDS.get(name, CLIPText)
    if kind is CLIPText:
        options["with_projection"] = "text_projection.weight" in weights
    return _building(where, lambda: kind.from_config(config, **options))


def expected_params(name: str, module: Any, where: str) -> Mapping:
    """Shapes of a module's parameters, as `jax.eval_shape` finds them; no memory is used."""
    return _building(where, lambda: _traced(name, module))


@functools.lru_cache(maxsize=16)
def _traced(name: str, module: Any) -> Mapping:
    args, named = _unet_example(module) if name == "unet" else (_example(module), {})

    def init(args, named):
        return module.init(jax.random.key(0), *args, **named)["params"]

    return jax.eval_shape(init, args, named)


def _example(module: Any) -> tuple:
    """Inputs of the smallest size that touches every parameter, as shapes."""
    if isinstance(module, AutoencoderKL):
        return (_shaped(1, 2 * module.factor, 2 * module.factor, module.in_channels),)
    if isinstance(module, Exemplar):
        return (_shaped(1, module.image_size, module.image_size, 3),)
    return (jax.ShapeDtypeStruct((1, module.max_position_embeddings), jnp.int32),)


def _unet_example(unet: UNet) -> tuple[tuple, dict]:
    size = 2 ** len(unet.block_out_channels)
    args = (_shaped(1, size, size, unet.in_channels), _shaped(), _shaped(1, 2, unet.context_width))
    if unet.addition_embed_type is None:
        return args, {}
    pooled = unet.projection_class_embeddings_input_dim - 6 * unet.addition_time_embed_dim
    return args, {"added": {"text_embeds": _shaped(1, pooled), "time_ids": _shaped(1, 6)}}


def _shaped(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _check_limits(config: Mapping, where: str) -> None:
    for key, limit in LIMITS.items():
        value = config.get(key)
        values = value if isinstance(value, list) else [value]
        numbers = [len(values), *(n for n in values if key not in LISTS and isinstance(n, int))]
        if max(numbers) > limit:
            raise UserError(f"{where}: the config's {key} = {str(value)[:60]} is absurd")


def _building(where: str, make: Callable[[], Any]) -> Any:
    """Runs `make`; whatever a nonsensical config makes it raise becomes one line."""
    try:
        return make()
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except Exception as error:  # a config can hold anything, and so can what it leads to
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{where}: its config describes no network: {reason[:200]}") from None


def digest(parts: Parts) -> str:
    """A short name of what was loaded: sha256 over configs, names, shapes and samples.

    It tells models apart in recipes; it is no protection, since it looks at the ends only.
    """
    found = hashlib.sha256(json.dumps(parts.configs, sort_keys=True).encode())
    for name in sorted(parts.weights):
        for key in sorted(parts.weights[name]):
            array = parts.weights[name][key]
            flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            ends = (zlib.crc32(flat[:SAMPLES].data), zlib.crc32(flat[-SAMPLES:].data))
            found.update(repr((name, key, array.shape, str(array.dtype), ends)).encode())
    return found.hexdigest()[:16]
