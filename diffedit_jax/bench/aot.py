"""The programs that are compiled for TPUs which are not there: networks, batches, shardings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..core import Cond, Network, Schedule, sample_batch
from ..errors import UserError
from ..models import AutoencoderKL, CLIPText, Exemplar, UNet
from ..models.layers import Compute
from ..models.resnet import ResnetBlock
from ..models.transformer import CrossAttention, Place, Transformer2D
from ..solvers import DDIM
from ..transforms import Combine

TOKENS = 77


@dataclasses.dataclass(frozen=True)
class Networks:
    """The networks of a latent diffusion model, without weights."""

    unet: Any
    vae: Any
    text: Any
    exemplar: Any  # Paint by Example's, in place of the text encoder
    side: int  # of the latent
    vocabulary: int = 49408


def stable_diffusion(dtype: Any = jnp.bfloat16) -> Networks:
    """Stable Diffusion 1.5 at 512x512, as its checkpoints' config files describe it."""
    unet = UNet(cross_attention_dim=768, dtype=dtype, attention="flash")
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        dtype=dtype,
        attention="flash",
    )
    text = CLIPText.from_config(
        {"hidden_size": 768, "intermediate_size": 3072, "projection_dim": 768,
         "num_attention_heads": 12, "num_hidden_layers": 12, "hidden_act": "quick_gelu"},
        dtype=dtype,
    )  # fmt: skip
    exemplar = Exemplar.from_config(
        {"hidden_size": 1024, "intermediate_size": 4096, "projection_dim": 768,
         "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14},
        dtype=dtype,
    )  # fmt: skip
    return Networks(unet, vae, text, exemplar, side=64)


def tiny(dtype: Any = jnp.bfloat16) -> Networks:
    """The same kinds of layer, in a size that compiles in seconds."""
    unet = UNet(
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=8,
        cross_attention_dim=32,
        dtype=dtype,
        attention="flash",
    )
    vae = AutoencoderKL(block_out_channels=(16, 32), norm_num_groups=8, dtype=dtype,
                        attention="flash")  # fmt: skip
    text = CLIPText.from_config(
        {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
         "num_hidden_layers": 1, "vocab_size": 64, "eos_token_id": 63},
        dtype=dtype,
    )  # fmt: skip
    exemplar = Exemplar.from_config(
        {"hidden_size": 32, "intermediate_size": 64, "projection_dim": 32, "image_size": 28,
         "num_attention_heads": 2, "num_hidden_layers": 4, "patch_size": 14},
        dtype=dtype,
    )  # fmt: skip
    return Networks(unet, vae, text, exemplar, side=16, vocabulary=64)


def mesh_of(topology: str) -> Mesh:
    """A mesh with one axis, "data", over the chips of a topology such as "v5e:2x4"."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(topology_name=topology, platform="tpu")
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"no TPU compiler for {topology!r} ({str(error).splitlines()[0][:120]}); "
            'install libtpu: pip install "diffedit_jax[tpu-aot]"'
        ) from error
    return Mesh(np.array(found.devices).reshape(-1), ("data",))


class Shapes:
    """Arguments without values: split over the chips along their first axis, or on every chip."""

    def __init__(self, mesh: Mesh):
        self.chips = mesh.size
        self._split = NamedSharding(mesh, PartitionSpec("data"))
        self._everywhere = NamedSharding(mesh, PartitionSpec())

    def split(self, shape: tuple, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        """An array whose first axis is spread over the chips."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self._split)

    def everywhere(self, tree: Any, dtype: Any = None) -> Any:
        """A tree of arrays (or of shapes) of which every chip has a copy."""
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(
                jnp.shape(a), dtype or jnp.result_type(a), sharding=self._everywhere
            ),
            tree,
        )

    def weights(self, module: Any, *inputs: Any) -> Any:
        """The parameters of a module, in bfloat16, on every chip."""
        made = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
        return self.everywhere(made["params"], jnp.bfloat16)


def attention_layer(shapes: Shapes, batch: int, *, grad: bool = False) -> tuple[Callable, tuple]:
    """(function, arguments): one self attention of the UNet's first level, projections included.

    With `grad` its forward and backward pass, by weights and input.
    """
    layer = CrossAttention(320, 8, Compute(jnp.bfloat16, attention="flash"))
    site = Place("layer", "down", 0).site(0, False, (64, 64), 8)
    tokens = jnp.zeros((1, 64 * 64, 320))

    def forward(weights, x):
        return layer.apply({"params": weights}, x, x, None, None, site)[0]

    def both(weights, x, slope):
        out, backward = jax.vjp(forward, weights, x)
        return out, backward(slope)

    weights = shapes.weights(layer, tokens, tokens, None, None, site)
    tokens = shapes.split((batch * shapes.chips, 64 * 64, 320), jnp.bfloat16)
    return (both, (weights, tokens, tokens)) if grad else (forward, (weights, tokens))


def first_block(shapes: Shapes, batch: int) -> tuple[Callable, tuple]:
    """(function, arguments): one resnet and one transformer of the UNet's first level."""
    compute, n = Compute(jnp.bfloat16, attention="flash"), batch * shapes.chips
    resnet = ResnetBlock(320, 320, compute=compute)
    transformer = Transformer2D(320, 8, 1, 32, False, Place("block", "down", 0), compute)
    x, temb, text = jnp.zeros((1, 64, 64, 320)), jnp.zeros((1, 1280)), jnp.zeros((1, TOKENS, 768))
    given = {"context": text, "kv": None, "bias": None}

    def forward(weights, x, temb, text):
        x = resnet.apply({"params": weights["resnet"]}, x, temb)
        given = {"context": text, "kv": None, "bias": None}
        return transformer.apply({"params": weights["transformer"]}, x, given, None)[0]

    weights = {
        "resnet": shapes.weights(resnet, x, temb),
        "transformer": shapes.weights(transformer, x, given, None),
    }
    sizes = (64, 64, 320), (1280,), (TOKENS, 768)
    return forward, (weights, *(shapes.split((n, *size), jnp.bfloat16) for size in sizes))


def unet_forward(nets: Networks, shapes: Shapes, batch: int) -> tuple[Callable, tuple]:
    """(function, arguments): one evaluation of the UNet, `batch` latents per chip."""
    n, side, unet = batch * shapes.chips, nets.side, nets.unet
    width = unet.cross_attention_dim
    example = jnp.zeros((1, side, side, 4)), 0.0, jnp.zeros((1, TOKENS, width))

    def forward(weights, x, t, context):
        return unet.apply({"params": weights}, x, t, context)[0]

    return forward, (
        shapes.weights(unet, *example),
        shapes.split((n, side, side, 4), jnp.bfloat16),
        shapes.split((n,)),
        shapes.split((n, TOKENS, width), jnp.bfloat16),
    )


def guided_loop(nets: Networks, shapes: Shapes, images: int, steps: int) -> tuple[Callable, tuple]:
    """(function, arguments): token ids and noise to pictures, `images` per chip.

    Text encoder on both prompts, `steps` DDIM steps with guidance through the library's own loop,
    decoder.
    """
    n, side = images * shapes.chips, nets.side
    table = DDIM().steps(Schedule(), steps)
    width = nets.unet.cross_attention_dim
    example = jnp.zeros((1, side, side, 4)), 0.0, jnp.zeros((1, TOKENS, width))
    weights = {
        "unet": shapes.weights(nets.unet, *example),
        "vae": shapes.weights(nets.vae, jnp.zeros((1, 8 * side, 8 * side, 3))),
        "text": shapes.weights(nets.text, jnp.zeros((1, TOKENS), jnp.int32)),
    }

    def pictures(weights, table, guidance, ids, x):
        hidden, _ = nets.text.apply({"params": weights["text"]}, ids.reshape(-1, TOKENS))
        cond = Cond(text=hidden.reshape(n, 2, TOKENS, width))
        denoiser = Network(params=weights["unet"], module=nets.unet)
        edit = Combine(weights=jnp.stack([1 - guidance, guidance], axis=-1))
        z = sample_batch(denoiser, DDIM(), edit, table, x, cond).x
        return nets.vae.apply({"params": weights["vae"]}, z / nets.vae.scaling_factor,
                              method="decode")  # fmt: skip

    return pictures, (
        weights,
        shapes.everywhere(table),
        shapes.split((n,)),
        shapes.split((n, 2, TOKENS), jnp.int32),
        shapes.split((n, side, side, 4)),
    )
