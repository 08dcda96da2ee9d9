"""Training steps that are compiled for TPUs which are not there: the trainer's own, on shapes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from ..core import Schedule
from ..errors import UserError
from ..models.style import StyleWord
from ..training import conditions, objectives, selections
from ..training.encoding import picture_encoder
from ..training.frozen import shapes_of_frozen
from ..training.optimisers import make_optimiser
from ..training.settings import complete
from ..training.sharding import NETWORK_RULES, ROWS, make_mesh
from ..training.state import shapes_of_state
from ..training.step import make_step
from ..training.task import Task
from ..training.tasks.inst import style_condition
from .aot import TOKENS, Networks

# what is trained, and the mesh that a chip's memory asks for: whole networks are spread over fsdp
TRAININGS = {
    "textual_inversion": ("data=-1", lambda nets: selections.NewRows((nets.vocabulary - 1,), (0,))),
    "dreambooth": ("data=-1,fsdp=8", lambda nets: selections.Paths("unet/.*")),
    "dreambooth_text": ("data=-1,fsdp=8", lambda nets: selections.Everything()),
    "dreambooth_lora": ("data=-1", lambda nets: selections.LowRank(rank=4)),
    "instruct_pix2pix": ("data=-1,fsdp=8", lambda nets: selections.Paths("unet/.*")),
    "paint_by_example": (
        "data=-1,fsdp=8",
        lambda nets: selections.Paths(r"unet/.*|exemplar/(?!model/).*"),
    ),
    "inst": ("data=-1", lambda nets: selections.Paths("style/.*")),
}
_CHANNELS = {"instruct_pix2pix": 8, "paint_by_example": 9}  # of the UNet; else 4


def mesh_of(topology: str, text: str) -> Mesh:
    """The trainer's mesh over the chips of a topology such as "v5e:16x16"."""
    from .aot import mesh_of as chips

    return make_mesh(text, list(chips(topology).devices.reshape(-1)))


def train_step(
    name: str, nets: Networks, mesh: Mesh, batch: int, *, remat: bool = False, encode: bool = False
) -> tuple[Callable, tuple]:
    """(the jitted step, its arguments without values): AdamW, clipping, bfloat16 products.

    Args:
      name: of TRAININGS.
      batch: examples per chip; their latents and token ids are the step's input.
      encode: pictures of 0 .. 255 are the input, and the autoencoder is part of the step
        (cache_latents=False).

    Raises: UserError for encode where the training always keeps its latents.
    """
    if encode and name == "inst":
        raise UserError("inst keeps the latents of its painting; it has no step that encodes")
    nets = _widened(nets, name)
    task, config = _task(name, nets, encode), complete({"compute": "bfloat16", "remat": remat})
    about = (task, make_optimiser(config), config)
    state = shapes_of_state(*about, mesh)
    frozen = shapes_of_frozen(task, state.trained, mesh, config.compute)
    step = make_step(*about, placed=jax.tree.map(lambda x: x.sharding, state))
    given = _pictures if encode else _latents
    return step, (state, frozen, _batch(name, nets, mesh, batch * mesh.size, given))


def shapes(name: str, nets: Networks) -> dict:
    """{"unet", "text_encoder" or "exemplar"}: the parameters of a training, float32, no values."""
    nets = _widened(nets, name)
    unet = _shapes(nets.unet, *_unet_example(nets))
    if name == "paint_by_example":
        return {"unet": unet, "exemplar": _shapes(nets.exemplar, jnp.zeros((1, *_seen(nets))))}
    found = {"unet": unet, "text_encoder": _shapes(nets.text, jnp.zeros((1, TOKENS), jnp.int32))}
    if name == "inst":
        style = _style(nets)
        found["style"] = _shapes(style, jnp.zeros((1, 1, style.features)))
    return found


def _task(name: str, nets: Networks, encode: bool) -> Task:
    params, inside = shapes(name, nets), dict.fromkeys(("scaled", "raw"))
    if encode:
        picture = jnp.zeros((1, *_picture(nets)))
        params["vae"] = _shapes(nets.vae, picture)
        scales = {"scaled": nets.vae.scaling_factor, "raw": 1.0}
        inside = {key: picture_encoder(nets.vae, scale) for key, scale in scales.items()}
    if name == "paint_by_example":
        ways = dict(drop=0.2, together=4, encode=inside["scaled"])
        condition = conditions.example_condition(nets.exemplar, **ways)
    elif name == "instruct_pix2pix":
        ways = dict(drop=0.05, empty=jnp.zeros((TOKENS,), jnp.int32), encode=inside["raw"])
        condition = conditions.instruct_condition(nets.text, **ways)
    elif name == "inst":
        condition = style_condition(nets.text, _style(nets), nets.vocabulary - 1)
    else:
        condition = conditions.text_condition(nets.text)
    about = dict(kind="epsilon", schedule=Schedule(), encode=inside["scaled"])
    objective = objectives.denoising(nets.unet, **about)
    return Task(name, params, objective, TRAININGS[name][1](nets), condition, NETWORK_RULES)


def _unet_example(nets: Networks) -> tuple:
    x = jnp.zeros((1, nets.side, nets.side, nets.unet.in_channels))
    return x, jnp.zeros((1,)), jnp.zeros((1, TOKENS, nets.unet.cross_attention_dim))


def _shapes(module: Any, *inputs: Any) -> Any:
    return jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))["params"]


def _widened(nets: Networks, name: str) -> Networks:
    return dataclasses.replace(nets, unet=nets.unet.clone(in_channels=_CHANNELS.get(name, 4)))


def _style(nets: Networks) -> StyleWord:
    """InST's module beside these networks: image tokens and words are of one width."""
    width = nets.unet.cross_attention_dim
    return StyleWord(width, width)


def _seen(nets: Networks) -> tuple[int, int, int]:
    """Shape of an example picture."""
    return nets.exemplar.image_size, nets.exemplar.image_size, 3


def _picture(nets: Networks) -> tuple[int, int, int]:
    """Shape of a picture of these networks."""
    side = nets.side * 2 ** (len(nets.vae.block_out_channels) - 1)
    return side, side, 3


def _batch(name: str, nets: Networks, mesh: Mesh, n: int, given: Callable) -> dict:
    """{name: shape and place} of `n` examples; what is drawn of them is `given`."""
    latent, more = (nets.side, nets.side, 4), {"ids": ((TOKENS,), jnp.int32)}
    if name == "paint_by_example":
        more = {"keep": ((*latent[:2], 1), jnp.float32), "shown": (_seen(nets), jnp.float32)}
    if name == "inst":
        more["tokens"] = ((1, nets.unet.cross_attention_dim), jnp.float32)
    spread = NamedSharding(mesh, ROWS)
    return {
        key: jax.ShapeDtypeStruct((n, *shape), dtype, sharding=spread)
        for key, (shape, dtype) in {**given(name, nets), **more}.items()
    }


def _latents(name: str, nets: Networks) -> dict:
    """Pictures that were encoded before: {name: (shape, dtype)}."""
    names = {
        "instruct_pix2pix": ["source"],
        "paint_by_example": ["deviation", "masked", "masked_deviation"],
    }
    latent = (nets.side, nets.side, 4), jnp.float32
    return dict.fromkeys(["latent", *names.get(name, [])], latent)


def _pictures(name: str, nets: Networks) -> dict:
    """The same as pictures that the step encodes."""
    names = {"instruct_pix2pix": ["source_image"], "paint_by_example": ["masked_image"]}
    return dict.fromkeys(["image", *names.get(name, [])], (_picture(nets), jnp.uint8))


def check(name: str) -> None:
    """Refuses the name of a training that is not known."""
    if name not in TRAININGS:
        raise UserError(f"--train knows {', '.join(TRAININGS)}, not {name!r}")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
