"""Inpainting: repaint what a mask covers, with an inpainting network or with any network."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from .. import solvers
from ..core import chain, first, skipped
from ..errors import UserError
from ..transforms import Blend
from .generate import guidance_edit
from .registry import method
from .run import Draws, begin_noised, encode, guided, pictures, walk
from .sdedit import partial_table, posterior_noise


def _evaluations(p):
    return solvers.named(p["solver"]).evaluations(
        p["steps"] - skipped(p["steps"], p["strength"])
    ), 2


@method(
    paper="Rombach et al. 2022 (2112.10752), inpainting networks; Avrahami et al. 2022 "
    "(2111.14818), blended diffusion for any network",
    start="picture",
    channels=(4, 9),
    evaluations=_evaluations,
    role="start",
    per_image=(
        "guidance",
        "rescale",
        "strength",
    ),
)
def inpaint(
    model,
    images,
    *,
    prompt: list[str],
    mask,
    negative: list[str] | None = None,
    strength: float = 1.0,
    steps: int = 50,
    guidance: float = 7.5,
    rescale: float = 0.0,
    solver: str = "ddim",
    eta: float | None = None,
    spacing: str | None = None,
    posterior: str = "sample",
    paste: bool = True,
    band: int = 4,
    seed: int = 0,
    index: int = 0,
    noise=None,
    watch=None,
):
    """Repaints the masked part of a picture as the prompt says and keeps the rest.

    A 9-channel network is told [latent | mask | masked picture's latent]; any other network is
    blended: after every step x = m x + (1 - m) (alpha' z0 + sigma' eps).

    Args:
      prompt: what the picture shall show, one text per picture.
      mask: [b, h, w] in [0, 1], 1 where the picture may change; halves and up count as 1.
      negative: what to move away from; the empty prompt if not given.
      strength: share of the steps that run, in (0, 1]; 1 starts from pure noise.
      steps: length of the full grid.
      guidance: classifier-free guidance scale.
      rescale: 0 to 1, pulls the contrast of guided predictions back (Lin et al. 2023).
      solver: name of the update rule.
      eta: 0 deterministic to 1 ancestral, for solvers that have it; None: the solver's own.
      spacing: leading, linspace or trailing; the checkpoint's own if not given.
      posterior: "sample" draws the picture's latent as diffusers does, "mean" takes its mean.
      paste: pixels outside the mask are the source's own, to the bit.
      band: with paste, width in pixels of the transition, which lies inside the mask.
      seed: of the noise; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the starting noise, or a mapping of draws, in place of the seed.

    Source: diffusers' StableDiffusionInpaintPipeline.__call__.
    """
    count = len(images)
    mask = _binary(mask, images.shape)
    rule = solvers.named(solver, eta=eta)
    draws = Draws(count, seed, index, noise)
    table = partial_table(model, rule, steps, strength, spacing, count)
    z0 = encode(model, images, posterior_noise(model, images, posterior, draws))
    eps = draws("start", z0.shape[1:])
    x = _begin(rule, table, z0, eps, strength)
    cond = guided(model, prompt, negative or [""] * count)
    edit, small = guidance_edit(guidance, rescale, count), latent_mask(mask, model.factor)
    if model.in_channels == 9:
        masked = jnp.asarray(images) * (1 - mask[..., None])
        hidden = encode(model, masked, posterior_noise(model, images, posterior, draws, "masked"))
        seen = jnp.concatenate([small, hidden], axis=-1)
        cond = cond.replace(channels=jnp.stack([seen, seen], axis=1))
    else:
        edit = chain(edit, Blend(mask=small, x0=z0, noise=eps))
    result = walk(model.denoiser, rule, edit, draws.on(table), x, cond,
                  watch=watch, preview=lambda x: pictures(model, x))  # fmt: skip
    edited = pictures(model, result.x)
    return pasted(edited, images, mask, band) if paste else edited


def latent_mask(mask, factor: int):
    """[b, H, W] -> [b, h, w, 1]: the pixel at the corner of each cell (nearest, floor index)."""
    return jnp.asarray(mask[:, ::factor, ::factor, None])


def pasted(edited: np.ndarray, images, mask: np.ndarray, band: int) -> np.ndarray:
    """Puts the source back outside the mask, to the bit, with a transition inside the mask.

    Args:
      edited: uint8 [b, h, w, 3].
      images: [b, h, w, 3] in [-1, 1], exact images of uint8 pictures.
      mask: [b, h, w] of 0 and 1.
      band: pixels over which the edit fades in, counted inwards from the mask's edge.
    """
    source = np.round((np.asarray(images, np.float32) / 2 + 0.5) * 255)
    weight = _ramp(mask, band)[..., None]
    return np.round(source + weight * (edited.astype(np.float32) - source)).astype(np.uint8)


def _ramp(mask, band):
    """Mean of the mask and its erosions by 1..band pixels: 0 outside, rising to 1 inside."""
    total, eroded = mask.astype(np.float32), mask
    for _ in range(band):
        wide = np.pad(eroded, ((0, 0), (1, 1), (1, 1)), mode="edge")
        rows = np.minimum(np.minimum(wide[:, :-2], wide[:, 1:-1]), wide[:, 2:])
        eroded = np.minimum(np.minimum(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])
        total = total + eroded
    return total / (band + 1)


def _begin(rule, table, z0, eps, strength):
    """Pure noise at strength 1, the noised picture below it, image by image."""
    pure = rule.begin(first(table.replace(active=None)), eps)
    whole = np.asarray(strength, np.float64).reshape(-1, 1, 1, 1) >= 1
    return jnp.where(whole, pure, begin_noised(table, z0, eps))


def _binary(mask, shape) -> np.ndarray:
    mask = np.asarray(mask, np.float32)
    if mask.shape != shape[:3]:
        raise UserError(f"the mask is {mask.shape[-2:]}, the picture {shape[1:3]} (height, width)")
    binary = (mask >= 0.5).astype(np.float32)
    if not binary.any():
        raise UserError("the mask is empty: nothing would change")
    return binary
