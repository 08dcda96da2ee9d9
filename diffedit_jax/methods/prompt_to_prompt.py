"""Prompt-to-Prompt: two prompts drawn together, the second one looking where the first looks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ..core import chain, skipped
from ..errors import UserError
from ..transforms import KeepOutside
from .cells import in_cells
from .controls import attention_edit, counted_calls, local_blend, read_texts
from .generate import guidance_edit
from .inversion import editing_table, latents_of, part, posterior_draws, walked
from .registry import method
from .rows import Edits, of_targets, rows_condition
from .run import check_steps, pictures, walk
from .sites import most_cells, reading_grid
from .starts import INVERSIONS, Asked, from_noise

_COMPAT = ("", "official")
_INVERSION = "pnp_inversion"


def _evaluations(p):
    rows = p["steps"] - skipped(p["steps"], p["strength"])
    return _inversion(p["inversion"]).calls(rows), 4


@method(
    paper="Hertz et al. 2022, Prompt-to-Prompt Image Editing with Cross Attention Control "
    "(2208.01626)",
    start="either",
    channels=(4,),
    evaluations=_evaluations,
)
def prompt_to_prompt(
    model,
    images=None,
    *,
    source: list[str],
    prompt: list[str],
    negative: list[str] | None = None,
    controller: str = "auto",
    mapper: str = "aligned",
    cross_replace_steps: float | str | dict = 0.8,
    self_replace_steps: float | str = 0.4,
    self_cells: int | None = None,
    equalizer: str | dict | None = None,
    blend_words: str | None = None,
    blend_without: str | None = None,
    blend_start: float = 0.2,
    blend_threshold: float = 0.3,
    blend_without_threshold: float = 0.3,
    blend_resolution: int | None = None,
    mask=None,
    inversion: str | None = None,
    strength: float = 1.0,
    steps: int = 50,
    guidance: float = 7.5,
    rescale: float = 0.0,
    solver: str = "ddim",
    spacing: str | None = None,
    posterior: str = "mean",
    compat: str = "",
    height: int | None = None,
    width: int | None = None,
    seed: int = 0,
    index: int = 0,
    noise=None,
    watch=None,
):
    """Draws the prompt with the attention of the source prompt, so that the layout stays.

    Rows [source, target, ...] start from one latent and are walked together; for a while the
    targets' cross attention is the source's, mapped word by word, and so is their self attention.
    Without a picture both rows are drawn from one noise; with a picture from its inversion. Prompts
    that share picture, source and noise are rows of one edit. Gives the targets.

    Args:
      source: what is drawn, or shown, in the source row.
      prompt: what it shall become, one text per picture.
      negative: what to move away from; the empty prompt if not given.
      controller: "replace" (prompts of equal word count), "refine" (words come or go), "reweight"
        (token k for token k), "auto" (replace where word counts agree, else refine).
      mapper: "aligned", or "official" for the published code's shift after changed words.
      cross_replace_steps: share of the steps with the source's cross attention: an end, begin:end,
        or words of the prompt with their own, "0.8, lion=0.4".
      self_replace_steps: the same for self attention, an end or begin:end.
      self_cells: self attention is taken over at layers of at most so many cells; 16 x 16 or a
        quarter of the latent's sides if not given. Another number compiles another program.
      equalizer: factors of words of the prompt, "smiling=3, pink=-1".
      blend_words: words whose region alone may change (LocalBlend); looked up in both prompts.
      blend_without: words whose region must not change.
      blend_start: share of the steps before the region acts.
      blend_threshold: of the region, a share of the highest attention.
      blend_without_threshold: the same for blend_without.
      blend_resolution: height in cells of the layers that locate words; the finest of at most
        16 x 16 (or a quarter of a larger latent) if not given. Another one compiles anew.
      mask: [b, h, w] in [0, 1], 1 where the targets may differ from the source row.
      inversion: how a picture is begun from: ddim, negative_prompt, null_text, pnp_inversion (if
        not given) or edict.
      strength: share of the steps that a picture is inverted and walked, in (0, 1].
      steps: length of the grid.
      guidance: classifier-free guidance scale.
      rescale: 0 to 1, pulls the contrast of guided predictions back (Lin et al. 2023).
      solver: update rule of drawn pictures, one that draws no noise; pictures go by ddim or edict.
      spacing: leading, linspace or trailing; the checkpoint's own if not given.
      posterior: "mean" takes the mean of the picture's latent, "sample" draws it.
      compat: "official" counts windows in questions to the network (plms asks twice at first).
      height: of drawn pictures in pixels, a multiple of the model's factor; its own size if not
        given.
      width: in pixels, as height.
      seed: of the noise; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the starting noise, or a mapping of draws, in place of the seed.

    Source: sections 3 and 4 of the paper; google/prompt-to-prompt (stable and null-text notebooks);
    cure-lab/PnPInversion for pictures.
    """
    if compat not in _COMPAT:
        raise UserError(f"compat must be 'official' or nothing, not {compat!r}")
    check_steps(model, steps)
    count = len(prompt)
    draws = noise if images is None else posterior_draws(noise)
    edits = Edits(
        count, seed=seed, index=index, noise=draws, images=images, mask=mask, source=source,
        negative=negative or "", guidance=guidance, rescale=rescale, strength=strength,
        blend_start=blend_start, blend_threshold=blend_threshold,
        blend_without_threshold=blend_without_threshold)  # fmt: skip
    cond = rows_condition(model, edits.own("source"), prompt, edits.own("negative"))
    guide = guidance_edit(edits.own("guidance"), edits.own("rescale"), edits.count)
    if images is None:
        unused = None if np.all(np.asarray(strength) == 1) else strength
        _refuse("prompt_to_prompt without a picture", inversion=inversion, strength=unused)
        start = from_noise(model, edits, cond, steps=steps, spacing=spacing, solver=solver,
                           height=height, width=width)  # fmt: skip
        before = 0
    else:
        _refuse("prompt_to_prompt on a picture", height=height, width=width)
        start, before = _from_pictures(
            model, edits, _inversion(inversion), posterior, cond=cond, guide=guide, steps=steps,
            spacing=spacing, watch=watch)  # fmt: skip
    shape = jax.tree.leaves(start.x)[0].shape[-3:]
    texts = read_texts(model, edits, prompt, cond.text.shape[-2], start.table)
    rules = attention_edit(
        texts, edits, cells=self_cells or most_cells(*shape[:2]),
        calls=counted_calls(start.rule, start.table) if compat else None, controller=controller,
        mapper=mapper, cross_replace_steps=cross_replace_steps,
        self_replace_steps=self_replace_steps, equalizer=equalizer)  # fmt: skip
    links = [*start.near, guide, *start.links, rules]
    if blend_words is not None or blend_without is not None:
        grid = reading_grid(model, shape, blend_resolution)
        links.append(local_blend(texts, edits, blend_words, blend_without, grid))
    if mask is not None:
        cells = in_cells(np.stack(edits.own("mask")), model.factor)
        links.append(KeepOutside(mask=jnp.asarray(cells)[..., None]))
    result = walk(model.denoiser, start.rule, chain(*links), start.table, start.x, start.cond,
                  watch=part(watch, before, before + walked(start.table)),
                  preview=lambda x: pictures(model, of_targets(x)))  # fmt: skip
    return pictures(model, of_targets(result.x))


def _from_pictures(model, edits: Edits, inversion, posterior, *, steps, spacing, watch, **asked):
    """(Start, how often the way up was reported)."""
    strength = np.asarray(edits.own("strength"), np.float64)
    table = editing_table(model, steps=steps, count=edits.count, strength=strength,
                          spacing=spacing)  # fmt: skip
    before = inversion.reports(walked(table))
    z0 = latents_of(model, np.stack(edits.own("images")), posterior, edits.draws)
    up = part(watch, 0, before + walked(table))
    told = Asked(z0, table=table, steps=steps, strength=strength, spacing=spacing,
                 targets=edits.targets, watch=up, **asked)  # fmt: skip
    return inversion.start(model, told), before


def _inversion(name: str | None):
    name = name or _INVERSION
    if name not in INVERSIONS:
        raise UserError(f"inversion {name!r} is not one of {', '.join(INVERSIONS)}")
    return INVERSIONS[name]


def _refuse(where: str, **given) -> None:
    """No parameter is silently ignored."""
    for name, value in given.items():
        if value is not None:
            raise UserError(f"{where} takes no {name}")
