"""Paint by Example: puts what one picture shows into a hole of another."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .. import solvers
from ..core import Cond, first
from ..errors import UserError
from ..images import prepared_example, read_example
from .generate import guidance_edit
from .inpaint import latent_mask, pasted
from .registry import method
from .run import Draws, check_steps, encode, pictures, walk
from .sdedit import posterior_noise

_LAYOUTS = ("paint_by_example", "inpaint")


def _evaluations(p):
    return solvers.named(p["solver"]).evaluations(p["steps"]), 2


@method(
    paper="Yang et al. 2022, Paint by Example: Exemplar-based Image Editing with Diffusion Models "
    "(2211.13227)",
    start="picture",
    channels=(9,),
    evaluations=_evaluations,
    role="example",
    per_image=("guidance",),
    told_by="example",
)
def paint_by_example(
    model,
    images,
    *,
    example,
    mask,
    steps: int = 50,
    guidance: float = 5.0,
    solver: str = "plms",
    eta: float | None = None,
    spacing: str | None = None,
    posterior: str = "sample",
    layout: str = "paint_by_example",
    compat: str = "",
    paste: bool = False,
    band: int = 4,
    seed: int = 0,
    index: int = 0,
    noise=None,
    watch=None,
):
    """Repaints the masked part of a picture with what an example picture shows.

    eps = eps(v) + guidance (eps(e) - eps(v)), from pure noise; e is one vector that an image
    encoder makes of the example, v a learned one; the network sees [x | E(keep * image) | keep]
    at every step, keep being 1 outside the mask.

    Args:
      example: what to put there: path, PIL image or uint8 [h, w, 3]; one, or one per picture.
      mask: [b, h, w] in [0, 1], 1 where the picture may change; more than a half counts as 1.
      steps: number of steps, 1 to the schedule's training steps.
      guidance: classifier-free guidance scale; more for small masks.
      solver: name of the update rule.
      eta: 0 deterministic to 1 ancestral, for solvers that have it; None: the solver's own.
      spacing: leading, linspace or trailing; the checkpoint's own if not given.
      posterior: "sample" draws the masked picture's latent as the original does, "mean" takes its
        mean.
      layout: order of the network's five further channels: "paint_by_example" is
        [masked picture | keep], "inpaint" that of inpainting networks, [mask | masked picture].
      compat: "diffusers" for its pipeline's way: the example's middle square instead of the whole
        example squashed, the mask's nearest pixel instead of bilinear ones, and no guidance where
        it is below 1.
      paste: pixels outside the mask are the source's own, to the bit; otherwise they are painted
        too, from what the network saw.
      band: with paste, width in pixels of the transition, which lies inside the mask.
      seed: of the noise; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the starting noise, or a mapping of draws, in place of the seed.

    Source: Paint-by-Example scripts/inference.py, ldm/models/diffusion/plms.py; diffusers'
    PaintByExamplePipeline.__call__.
    """
    count, theirs = len(images), is_theirs(compat)
    hole = binary_hole(mask, images.shape)
    check_steps(model, steps)
    rule = solvers.named(solver, eta=eta)
    draws = Draws(count, seed, index, noise)
    table = rule.steps(model.schedule, steps, spacing=spacing).replace(active=None)
    cond = shown(model, [read_example(one).pixels for one in example], crop=theirs)
    seen = hole_channels(model, images, hole, layout, posterior, draws, theirs)
    cond = cond.replace(channels=jnp.stack([seen, seen], axis=1))
    guidance = np.where(np.asarray(guidance) < 1, 1.0, guidance) if theirs else guidance
    edit = guidance_edit(guidance, 0.0, count)
    x = rule.begin(first(table), draws("start", model.latent_shape(*images.shape[1:3])))
    result = walk(model.denoiser, rule, edit, draws.on(table), x, cond,
                  watch=watch, preview=lambda x: pictures(model, x))  # fmt: skip
    edited = pictures(model, result.x)
    return pasted(edited, images, hole, band) if paste else edited


def shown(model, examples: list[np.ndarray], *, crop: bool = False) -> Cond:
    """Condition of guidance by example: leaves [b, 2, ...], the learned vector first."""
    size = model.exemplar.module.image_size
    pixels = np.stack([prepared_example(one, size, crop=crop) for one in examples])
    null, told = model.null(len(examples)), model.example(jnp.asarray(pixels))
    return jax.tree.map(lambda n, e: jnp.stack([n.astype(e.dtype), e], axis=1), null, told)


def binary_hole(mask, shape) -> Float[np.ndarray, "b h w"]:
    """[b, h, w] of 0 and 1; keep = 1 - mask counts from a half up, as in the official code.

    Raises: UserError for masks of another size, and for those that are empty or full.
    """
    mask = np.asarray(mask, np.float32)
    if mask.shape != shape[:3]:
        raise UserError(f"the mask is {mask.shape[-2:]}, the picture {shape[1:3]} (height, width)")
    hole = (mask > 0.5).astype(np.float32)
    if not hole.any((1, 2)).all():
        raise UserError("the mask is empty: there is nowhere to paint the example")
    if hole.all((1, 2)).any():
        raise UserError("the mask covers the whole picture: nothing would be left to fit into")
    return hole


def bilinear_mask(mask: Float[np.ndarray, "b h w"], factor: int):
    """[b, H, W] -> [b, h, w, 1]: the mask at every cell's centre, between its middle pixels.

    Source: torchvision's Resize of a tensor (bilinear, align_corners False, no antialiasing).
    """
    near, far = (factor - 1) // 2, factor // 2
    rows = (mask[:, near::factor] + mask[:, far::factor]) / 2
    return jnp.asarray((rows[:, :, near::factor] + rows[:, :, far::factor])[..., None] / 2)


def hole_channels(model, images, hole, layout: str, posterior: str, draws: Draws, theirs: bool):
    """[b, h, w, 5] what the network sees beside the noisy latent, of pictures and their holes."""
    masked = jnp.asarray(images) * (1 - hole[..., None])
    hidden = encode(model, masked, posterior_noise(model, images, posterior, draws, "masked"))
    cells = latent_mask(1 - hole, model.factor) if theirs else bilinear_mask(1 - hole, model.factor)
    return channels(hidden, cells, layout)


def channels(hidden, keep, layout: str):
    """The five channels beside the noisy latent.

    Args:
      hidden: [b, h, w, 4] latent of the masked picture.
      keep: [b, h, w, 1], 1 where the picture stays.
    """
    if layout not in _LAYOUTS:
        raise UserError(f"layout must be {' or '.join(map(repr, _LAYOUTS))}, not {layout!r}")
    parts = [hidden, keep] if layout == "paint_by_example" else [1 - keep, hidden]
    return jnp.concatenate(parts, axis=-1)


def is_theirs(compat: str) -> bool:
    """Whether diffusers' way is asked for; refuses other words."""
    if compat not in ("", "diffusers"):
        raise UserError(f"compat must be 'diffusers' or nothing, not {compat!r}")
    return compat == "diffusers"
