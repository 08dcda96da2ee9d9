"""DiffEdit: find where the prompt disagrees with the picture, and repaint only there."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import solvers
from ..core import Result, Solver, Step, chain, noised, row, skipped, table
from ..errors import UserError
from ..notices import show_mask, tell
from ..transforms import Combine, Follow
from .cells import Masks, blurred, dilated, in_cells, in_pixels
from .generate import guidance_edit
from .inpaint import pasted
from .inversion import descend, editing_table, invert, latents_of, mirrored, part, passed, walked
from .registry import method
from .run import Draws, check_steps, guided, pictures, walk

_COMPAT = ("", "diffusers")


def _evaluations(p):
    rows = p["steps"] - skipped(p["steps"], p["strength"])
    return 2 * rows + (p["maps"] if p["mask"] is None else 0), 2


@method(
    paper="Couairon et al. 2023, DiffEdit: Diffusion-based semantic image editing with mask "
    "guidance (2210.11427)",
    start="picture",
    channels=(4,),
    evaluations=_evaluations,
    role="mask",
    per_image=(
        "guidance",
        "strength",
        "clip_ratio",
        "threshold",
        "dilate",
        "blur",
    ),
)
def diffedit(
    model,
    images,
    *,
    prompt: list[str],
    source: list[str] | None = None,
    negative: list[str] | None = None,
    mask=None,
    strength: float = 0.8,
    steps: int = 50,
    guidance: float = 7.5,
    maps: int = 10,
    mask_strength: float = 0.5,
    clip_ratio: float = 3.0,
    threshold: float = 0.5,
    dilate: int = 0,
    blur: float = 0.0,
    encode_prompt: str = "",
    encode_guidance: float = 1.0,
    paste: bool = False,
    compat: str = "",
    spacing: str | None = None,
    posterior: str = "mean",
    seed: int = 0,
    index: int = 0,
    noise=None,
    watch=None,
):
    """Finds the region that the prompt wants changed, and edits the picture only there.

    1. D = mean over noises and channels |eps(x_m, prompt) - eps(x_m, source)|, clipped at
       clip_ratio mean(D), rescaled to [0, 1]; mask M = D > threshold.
    2. x_t: DDIM encoding of the picture without a prompt, up to `strength`.
    3. y from x_r by DDIM with the prompt and guidance; after every step y_t = M y_t + (1 - M) x_t,
       so that outside the mask the latent ends on the picture's own, to the bit.

    Args:
      prompt: what the picture shall show, one text per picture.
      source: what it shows now, the reference of the mask; the empty prompt if not given.
      negative: what to move away from while decoding; the empty prompt if not given.
      mask: [b, h, w] in [0, 1], 1 where the picture may change, in place of step 1.
      strength: share of the steps that the picture is encoded and decoded (r), in (0, 1].
      steps: length of the full grid.
      guidance: classifier-free guidance scale of the decoding.
      maps: number of noises that the mask is averaged over (n).
      mask_strength: noise level at which the mask is looked for, a share of the grid in (0, 1].
      clip_ratio: D is clipped at this many times its mean over the picture.
      threshold: of the rescaled D; lower for larger masks.
      dilate: cells of the latent by which the mask grows.
      blur: standard deviation in cells by which the mask's edge is softened.
      encode_prompt: what the encoding is told; the paper's is empty.
      encode_guidance: guidance while encoding; anything but 1 changes the background.
      paste: pixels outside the mask are the source's own, to the bit.
      compat: "diffusers" for its pipeline's mask (statistics over the whole batch, no lower end of
        the rescaling) and its blending with the encoded latent one step noisier.
      spacing: leading, linspace or trailing; the checkpoint's own if not given.
      posterior: "mean" takes the mean of the picture's latent, "sample" draws it.
      seed: of the noises; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the mask's noises [b, maps, h, w, c], or a mapping ("steps" for those, "posterior"),
        in place of the seed.

    Source: section 3.2 of the paper; diffusers' StableDiffusionDiffEditPipeline for `compat`.
    """
    count = len(images)
    if compat not in _COMPAT:
        raise UserError(f"compat must be 'diffusers' or nothing, not {compat!r}")
    draws = Draws(count, seed, index, _mask_draws(noise))
    grid = editing_table(model, steps=steps, count=count, strength=strength, spacing=spacing)
    before = maps if mask is None else 0
    total = before + 2 * walked(grid)
    z0 = latents_of(model, images, posterior, draws)
    if mask is None:
        level = mask_level(model, steps, mask_strength, spacing)
        found = contrast(model, z0, prompt, source, level=level, maps=maps, draws=draws,
                         watch=part(watch, 0, total))  # fmt: skip
        cells = mask_of(found, clip_ratio, threshold, compat)
    else:
        cells = in_cells(mask, model.factor)
    cells = softened(cells, dilate, blur, mask is None)
    show_mask(in_pixels(cells, model.factor))
    up = encoded(model, z0, encode_prompt, encode_guidance, grid, part(watch, before, total))
    edit = chain(guidance_edit(guidance, 0.0, count), kept(cells, up.recorded, z0, compat))
    cond = guided(model, prompt, negative or [""] * count)
    down = descend(model, edit, grid, up.x, cond, watch=part(watch, (before + total) // 2, total))
    edited = pictures(model, down.x)
    return pasted(edited, images, in_pixels(cells > 0, model.factor), 0) if paste else edited


def diffedit_mask(model, images, *, prompt: list[str], source: list[str] | None = None,
                  steps: int = 50, maps: int = 10, mask_strength: float = 0.5,
                  clip_ratio: float = 3.0, threshold: float = 0.5, dilate: int = 0,
                  blur: float = 0.0, compat: str = "", spacing: str | None = None, seed: int = 0,
                  index: int = 0, noise=None, watch=None) -> Masks:  # fmt: skip
    """The mask that `diffedit` finds, in pixels: to look at, or as `mask=` of another method.

    Args: those of `diffedit`; images are [b, h, w, 3] in [-1, 1].
    Example: `mask = diffedit_mask(model, images, prompt=["a dog"], source=["a cat"])[0]`.
    """
    draws = Draws(len(images), seed, index, _mask_draws(noise))
    z0 = latents_of(model, images, "mean", draws)
    level = mask_level(model, steps, mask_strength, spacing)
    found = contrast(model, z0, prompt, source, level=level, maps=maps, draws=draws,
                     watch=watch)  # fmt: skip
    cells = mask_of(found, clip_ratio, threshold, compat)
    return in_pixels(softened(cells, dilate, blur, True), model.factor)


class Probe(Solver):
    """Asks about the picture noised to the row's level, with the row's own noise; goes nowhere."""

    draws = True

    def step(self, denoise, x, memory, step):
        return x, memory, denoise(noised(step, x, step.normal(x)), step)


def difference(move) -> Float[Array, "h w"]:
    """Records |eps(prompt) - eps(source)| averaged over channels."""
    return jnp.mean(jnp.abs(move.prediction.eps), axis=-1)


def contrast(model, z0, prompt, source, *, level: Step, maps: int, draws: Draws,
             watch=None) -> Float[np.ndarray, "b h w"]:  # fmt: skip
    """D: mean over noises and channels of |eps(x, prompt) - eps(x, source)|.

    Guidance with equal negative prompts only scales D, so none is used. An InstructPix2Pix network
    is shown the picture in both questions and told the instruction in one of them.

    Source: section 3.2, step 1; for InstructPix2Pix Mirzaei et al. 2023 (2308.08947).
    """
    if maps < 1:
        raise UserError(f"maps must be at least 1, not {maps}")
    same = [np.full(maps + 1, a) for a in (level.t, level.alpha, level.sigma)]
    rows = draws.on(table(*same).replace(active=None))
    expected = (len(z0), maps, *z0.shape[1:])
    if rows.noise is not None and rows.noise.shape != expected:
        raise UserError(f"the mask's noise has shape {rows.noise.shape}, expected {expected}")
    cond = guided(model, prompt, source or [""] * len(prompt))
    if model.in_channels == 8:  # the picture is told beside both texts
        shown = z0 / model.scaling_factor
        cond = cond.replace(channels=jnp.stack([shown, shown], axis=1))
    apart = Combine(weights=jnp.tile(jnp.array([-1.0, 1.0]), (len(z0), 1)))
    result = walk(model.denoiser, Probe(), apart, rows, z0, cond, record=difference,
                  watch=watch, preview=lambda x: pictures(model, x))  # fmt: skip
    return np.asarray(result.recorded).mean(axis=1)


def mask_level(model, steps: int, strength: float, spacing: str | None) -> Step:
    """The row of the sampling grid at whose noise level the mask is looked for."""
    check_steps(model, steps)
    if np.ndim(strength) != 0 or not 0 < strength <= 1 or skipped(steps, strength) == steps:
        raise UserError(
            f"mask_strength must be one share of the {steps} steps in (0, 1], not {strength}"
        )
    grid = solvers.DDIM().steps(model.schedule, steps, spacing=spacing)
    return row(grid, skipped(steps, strength))


def mask_of(found: Float[np.ndarray, "b h w"], ratio, threshold, compat: str = ""):
    """[b, h, w] of 0 and 1: D clipped at ratio mean(D), rescaled to [0, 1], above the threshold.

    Statistics are each picture's own; in diffusers' variant the mean is the batch's, and the
    rescaling divides by the clipping point.
    """
    if not np.all(np.asarray(ratio) > 0):
        raise UserError(f"clip_ratio must be above 0, not {ratio}")
    if not np.all((np.asarray(threshold) >= 0) & (np.asarray(threshold) < 1)):
        raise UserError(f"threshold must be in [0, 1), not {threshold}")
    whole = None if compat == "diffusers" else (1, 2)
    ratio, threshold = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (ratio, threshold))
    top = ratio * found.mean(axis=whole, keepdims=True)
    clipped = np.minimum(found, top)
    if compat == "diffusers":
        return (clipped > threshold * top).astype(np.float32)
    low, high = (f(clipped, axis=whole, keepdims=True) for f in (np.min, np.max))
    return (clipped - low > threshold * (high - low)).astype(np.float32)


def softened(cells: Float[np.ndarray, "b h w"], dilate, blur, searched: bool):
    """The masks grown by `dilate` cells and blurred by `blur`; refuses empty and full ones."""
    return usable(blurred(dilated(cells, dilate), blur), searched)


def usable(cells: Float[np.ndarray, "b h w"], searched: bool) -> Float[np.ndarray, "b h w"]:
    """The masks, unless one is empty or full; says how much of each picture they cover."""
    shares = cells.mean(axis=(1, 2))
    for number, (share, one) in enumerate(zip(shares, cells, strict=True), 1):
        which = "the mask" if len(cells) == 1 else f"the mask of picture {number}"
        if not one.any():
            raise UserError(
                f"{which} is empty: "
                + ("prompt and source say the same; lower the threshold or give a mask"
                   if searched else "nothing would change")
            )  # fmt: skip
        if (one == 1).all():
            raise UserError(f"{which} covers the whole picture; raise the threshold or use sdedit")
        tell(f"{which} covers {100 * share:.0f} % of the picture")
    return cells


def encoded(model, z0, prompt, guidance, grid: Step, watch=None) -> Result:
    """DDIM encoding along the grid's walked rows; one plain question per step for guidance 1."""
    count = len(z0)
    texts = [prompt] * count if isinstance(prompt, str) else list(prompt)
    if np.all(np.asarray(guidance) == 1):
        return invert(model, z0, model.condition(texts), table=grid, watch=watch)
    tell("encode_guidance other than 1 changes the background; 1 is usual")
    cond = guided(model, texts, [""] * count)
    edit = guidance_edit(guidance, 0.0, count)
    return invert(model, z0, cond, table=grid, edit=edit, watch=watch)


def kept(cells, recorded, z0, compat: str = "") -> Follow:
    """Outside the mask the encoded latents: of the level that a step reaches, z0 at the end.

    In diffusers' variant of the level that the step leaves, so the end keeps a little noise.
    """
    path = mirrored(recorded) if compat == "diffusers" else passed(recorded, z0)
    return Follow(mask=jnp.asarray(cells)[..., None], path=path)


def _mask_draws(noise):
    """An array given as noise is the mask's."""
    return noise if noise is None or isinstance(noise, Mapping) else {"steps": noise}
