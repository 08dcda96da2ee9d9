"""Prompt-to-Prompt: two prompts drawn together, the second one looking where the first looks."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ..core import chain
from ..errors import UserError
from ..transforms import KeepOutside
from .cells import in_cells
from .controls import attention_edit, counted_calls, local_blend, read_texts
from .generate import guidance_edit
from .inversion import latents_of, part, walked
from .registry import find, method
from .rows import Edits, from_source_row, of_targets, rows_condition
from .run import check_steps, pictures, walk
from .sites import most_cells, reading_grid
from .starts import INVERSIONS, Asked, Inversion, Start, from_noise

_COMPAT = ("", "official")
_NOT_PARAMETERS = ("model", "images", "watch")
_OF_A_DRAWING = ("steps", "spacing", "solver", "height", "width")
_ATTENTION = ("controller", "mapper", "cross_replace_steps", "self_replace_steps", "equalizer")
_OF_AN_EDIT = ("mask", "source", "guidance", "rescale", "strength", "blend_words", "blend_without",
               "blend_start", "blend_threshold", "blend_without_threshold")  # fmt: skip
_INVERSION = "pnp_inversion"


def _evaluations(p):
    inversion = named_inversion(p["inversion"])
    return inversion.calls(p, inversion.rows(p)), 4


@method(
    paper="Hertz et al. 2022, Prompt-to-Prompt Image Editing with Cross Attention Control "
    "(2208.01626)",
    start="either",
    channels=(4,),
    evaluations=_evaluations,
    role="edit",
    per_image=(
        "guidance",
        "rescale",
        "strength",
        "controller",
        "mapper",
        "cross_replace_steps",
        "self_replace_steps",
        "equalizer",
        "blend_words",
        "blend_without",
        "blend_start",
        "blend_threshold",
        "blend_without_threshold",
    ),
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
    blend_words: str | dict | None = None,
    blend_without: str | dict | None = None,
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
    solver: str | None = None,
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
      blend_words: words whose region alone may change (LocalBlend), "cat dog": each is looked up in
        both prompts and may be in one of them only, whose region it then is; or words of each
        prompt, {"source": "cat", "prompt": "dog"}.
      blend_without: words whose region must not change, named in the same ways.
      blend_start: share of the steps before the region acts.
      blend_threshold: of the region, a share of the highest attention.
      blend_without_threshold: the same for blend_without.
      blend_resolution: height in cells of the layers that locate words; the finest of at most
        16 x 16 (or a quarter of a larger latent) if not given. Another one compiles anew.
      mask: [b, h, w] in [0, 1], 1 where the targets may differ from the source row.
      inversion: how a picture is begun from: ddim, negative_prompt, null_text, pnp_inversion (if
        not given), direct_inversion, edict or sdedit; to set its own parameters name both methods,
        "edict+prompt_to_prompt".
      strength: share of the steps that a picture is inverted and walked, in (0, 1].
      steps: length of the grid.
      guidance: classifier-free guidance scale.
      rescale: 0 to 1, pulls the contrast of guided predictions back (Lin et al. 2023).
      solver: update rule of drawn pictures, one that draws no noise, ddim if not given; pictures
        go by ddim or edict.
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
    given = {name: value for name, value in locals().items() if name not in _NOT_PARAMETERS}
    if images is None:
        unused = None if np.all(np.asarray(strength) == 1) else strength
        _refuse("prompt_to_prompt without a picture", inversion=inversion, strength=unused)
        return walk_rows(model, None, None, given, watch)
    start = named_inversion(inversion)
    unused = {"height", "width", "solver"} | ({"spacing", "negative"} - _begun_with(inversion))
    where = f"prompt_to_prompt on a picture begun by {inversion or _INVERSION}"
    own = getattr(model, "defaults", {})  # what a model recommends, nobody has asked for
    _refuse(where, **{k: given[k] for k in sorted(unused) if given[k] != own.get(k)})
    return walk_rows(model, images, start, given, watch)


def walk_rows(model, images, inversion: Inversion | None, p: dict, watch=None):
    """Walks rows [source, targets] of every edit, from an inversion of pictures or from noise.

    Args:
      images: [b, h, w, 3] in [-1, 1]; None without an inversion.
      p: the parameters of `prompt_to_prompt`, complete.
      watch: called after every step, both ways.
    Returns: uint8 [b, h, w, 3], the targets.
    """
    if p["compat"] not in _COMPAT:
        raise UserError(f"compat must be 'official' or nothing, not {p['compat']!r}")
    check_steps(model, p["steps"])
    edits = _edits(images, inversion, p)
    cond = rows_condition(model, edits.own("source"), p["prompt"], edits.own("negative"))
    guide = guidance_edit(edits.own("guidance"), edits.own("rescale"), edits.count)
    if inversion is None:
        drawn = {name: p[name] for name in _OF_A_DRAWING} | {"solver": p["solver"] or "ddim"}
        start, before = from_noise(model, edits, cond, **drawn), 0
    else:
        start, before = _from_pictures(model, edits, inversion, p, cond, guide, watch)
    edit, total = _edit(model, edits, start, guide, p), before + walked(start.table)

    def run(table, x, before):
        told = part(watch, before, total)
        return walk(model.denoiser, start.rule, edit, table, x, start.cond, watch=told,
                    preview=lambda x: pictures(model, of_targets(x))).x  # fmt: skip

    x = start.x if start.up is None else from_source_row(run(start.up, start.x, 0))
    return pictures(model, of_targets(run(start.table, x, before)))


def _edits(images, inversion, p: dict) -> Edits:
    """The batch as edits; pictures of one edit share all that the source row depends on."""
    noise, own = p["noise"], {} if inversion is None else dict(inversion.knobs)
    if inversion is not None and noise is not None and not isinstance(noise, Mapping):
        noise = {inversion.noise: noise}
    shared = {name: p[name] for name in _OF_AN_EDIT}
    return Edits(len(p["prompt"]), seed=p["seed"], index=p["index"], noise=noise, images=images,
                 negative=p["negative"] or "", **shared, **own)  # fmt: skip


def _from_pictures(model, edits: Edits, inversion: Inversion, p: dict, cond, guide, watch):
    """(Start, how often the way up is reported)."""
    z0 = latents_of(model, np.stack(edits.own("images")), p["posterior"], edits.draws)
    asked = Asked(z0, cond, guide, p["steps"], np.asarray(edits.own("strength"), np.float64),
                  p["spacing"], edits.targets, edits.draws)  # fmt: skip
    knobs = {name: _agreed(edits.own(name)) for name in inversion.knobs}
    table = inversion.table(model, asked, **knobs)
    before = inversion.reports(walked(table))
    asked = asked._replace(table=table, watch=part(watch, 0, before + walked(table)))
    return inversion.start(model, asked, **knobs), before


def _edit(model, edits: Edits, start: Start, guide, p: dict):
    """The chain: null prompts, guidance, the inversion's own, attention, region, mask."""
    shape = jax.tree.leaves(start.x)[0].shape[-3:]
    texts = read_texts(model, edits, p["prompt"], start.cond.text.shape[-2], start.table)
    rules = attention_edit(
        texts, edits, cells=_self_cells(p["self_cells"], shape),
        calls=counted_calls(start.rule, start.table) if p["compat"] else None,
        **{name: p[name] for name in _ATTENTION})  # fmt: skip
    links = [*start.near, start.guide or guide, *start.links, rules]
    if p["blend_words"] is not None or p["blend_without"] is not None:
        grid = reading_grid(model, shape, p["blend_resolution"])
        links.append(local_blend(texts, edits, grid))
    if p["mask"] is not None:
        cells = in_cells(np.stack(edits.own("mask")), model.factor)
        links.append(KeepOutside(mask=jnp.asarray(cells)[..., None]))
    return chain(*links)


def _self_cells(cells: int | None, shape) -> int:
    """Layers of how many cells share self attention; 0: none does."""
    if cells is not None and cells < 0:
        raise UserError(f"self_cells must be 0 or more, not {cells}")
    return most_cells(*shape[:2]) if cells is None else cells


def _begun_with(inversion: str | None) -> set[str]:
    """Parameters of the method that an inversion is named after."""
    name = inversion or _INVERSION
    return set(find({"ddim": "ddim_inversion"}.get(name, name)).parameters)


def _agreed(values: list):
    """One value where all edits have the same, else all of them."""
    return values[0] if all(v == values[0] for v in values) else values


def named_inversion(name: str | None) -> Inversion:
    """An entry of INVERSIONS; without a name the default."""
    name = name or _INVERSION
    if name not in INVERSIONS:
        raise UserError(f"inversion {name!r} is not one of {', '.join(INVERSIONS)}")
    return INVERSIONS[name]


def _refuse(where: str, **given) -> None:
    """No parameter is silently ignored."""
    for name, value in given.items():
        if value is not None:
            raise UserError(f"{where} takes no {name}")
