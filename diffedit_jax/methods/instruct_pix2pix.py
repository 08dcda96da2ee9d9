"""InstructPix2Pix: edits a picture as an instruction says, with a network made for it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import solvers
from ..core import Cond, chain, first
from ..errors import UserError
from ..transforms import Blend, Combine
from .cells import in_cells
from .registry import method
from .run import Draws, check_steps, encode, guided, per_image, pictures, to_uint8, walk


def _evaluations(p):
    return solvers.named(p["solver"]).evaluations(p["steps"]), 3


@method(
    paper="Brooks et al. 2023, InstructPix2Pix: Learning to Follow Image Editing Instructions "
    "(2211.09800)",
    start="picture",
    channels=(8,),
    evaluations=_evaluations,
    role="start",
    per_image=("guidance", "image_guidance"),
    cuts=lambda p: p.get("compat") == "official",
)
def instruct_pix2pix(
    model,
    images,
    *,
    prompt: list[str],
    negative: list[str] | None = None,
    mask=None,
    steps: int = 100,
    guidance: float = 7.5,
    image_guidance: float = 1.5,
    solver: str = "euler_ancestral",
    eta: float | None = None,
    spacing: str | None = None,
    compat: str = "",
    seed: int = 0,
    index: int = 0,
    noise=None,
    watch=None,
):
    """Follows an instruction ("make it winter"); the network sees the picture at every step.

    eps = eps(0, 0) + s_I (eps(I, 0) - eps(0, 0)) + s_T (eps(I, T) - eps(I, 0)),  from pure noise;
    I is the mode of the picture's latent, not scaled, in four further channels; no picture: zeros.

    Args:
      prompt: the instruction, one text per picture; an empty one asks for nothing, and its picture
        comes back as it is.
      negative: stands for the empty text, with the picture and without; the empty prompt if not
        given.
      mask: [b, h, w] in [0, 1], 1 where the picture may change; elsewhere it is kept, noised to the
        level of each step.
      steps: number of steps, 1 to the schedule's training steps.
      guidance: s_T; 1 follows the instruction as trained, 0 ignores it, 6 to 9 are usual.
      image_guidance: s_I; how much the result shall be this picture, 1.2 to 1.8 are usual.
      solver: name of the update rule.
      eta: 0 deterministic to 1 ancestral, for solvers that have it; None: the solver's own.
      spacing: leading, linspace or trailing; the checkpoint's own if not given.
      compat: "diffusers" to ignore both scales, as its pipeline does without a word, where
        guidance is 1 or less or image_guidance is below 1; "official" for the size of its script:
        the picture's middle, cut to fill whole cells (64 pixels for SD 1.5) and longer than `size`
        where that needs it. By default the whole picture is kept, at any size.
      seed: of the noise; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the starting noise, or a mapping of draws, in place of the seed.

    Source: eq. 3 of the paper; instruct-pix2pix edit_cli.py (CFGDenoiser, main); diffusers'
    StableDiffusionInstructPix2PixPipeline.__call__.
    """
    if compat not in ("", "diffusers", "official"):
        raise UserError(f"compat must be 'diffusers', 'official' or nothing, not {compat!r}")
    count, asked = len(images), np.array([bool(text.strip()) for text in prompt])
    check_steps(model, steps)
    if not asked.any():
        return _as_they_are(images)
    rule = solvers.named(solver, eta=eta)
    draws = Draws(count, seed, index, noise)
    table = rule.steps(model.schedule, steps, spacing=spacing).replace(active=None)
    shown = encode(model, images) / model.scaling_factor
    eps = draws("start", shown.shape[1:])
    x = rule.begin(first(table), eps)
    cond = instructed(guided(model, prompt, negative or [""] * count), shown)
    text = per_image(guidance, count, "guidance")
    image = per_image(image_guidance, count, "image_guidance")
    edit = Combine(weights=two_scales(text, image, compat))
    if mask is not None:
        cells = jnp.asarray(in_cells(mask, model.factor))[..., None]
        edit = chain(edit, Blend(mask=cells, x0=shown * model.scaling_factor, noise=eps))
    result = walk(model.denoiser, rule, edit, draws.on(table), x, cond,
                  watch=watch, preview=lambda x: pictures(model, x))  # fmt: skip
    edited = pictures(model, result.x)
    if asked.all():
        return edited
    return np.where(asked[:, None, None, None], edited, _as_they_are(images))


def _as_they_are(images) -> np.ndarray:
    """uint8 pictures. Source: edit_cli.py, which saves the input where the edit is ""."""
    return np.asarray(to_uint8(jnp.asarray(images)))


def instructed(texts: Cond, shown: Float[Array, "b h w c"]) -> Cond:
    """The three questions of one step: (nothing, picture, picture and text).

    Args:
      texts: leaves [b, 2, ...], the null text first.
      shown: latents of the pictures, not scaled.
    """
    three = jax.tree.map(lambda a: a[:, jnp.array([0, 0, 1])], texts)
    return three.replace(channels=jnp.stack([jnp.zeros_like(shown), shown, shown], axis=1))


def two_scales(
    text: Float[Array, "b"], image: Float[Array, "b"], compat: str = ""
) -> Float[Array, "b 3"]:
    """(1 - s_I, s_I - s_T, s_T): the weights of (nothing, picture, picture and text)."""
    weights = jnp.stack([1 - image, image - text, text], axis=-1)
    if compat != "diffusers":
        return weights
    active = (text > 1) & (image >= 1)
    return jnp.where(active[:, None], weights, jnp.array([0.0, 0.0, 1.0]))
