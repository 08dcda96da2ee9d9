"""The public face: load a model, edit a picture, draw a picture."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import images as picture_files
from . import recipe as recipes
from .errors import UserError
from .methods.registry import Method, find
from .notices import listening

_TEXTS = ("prompt", "negative", "source")  # parameters that are one text per picture
_FILES = ("mask", "example", "style")  # parameters that are pictures or other files
_OF_A_BATCH = ("noise",)  # arrays that belong to the whole batch


@dataclasses.dataclass(frozen=True)
class Result:
    """What an edit gives back.

    Attributes:
      image: uint8 [h, w, 3]; [b, h, w, 3] for a batch; a list where pictures differ in size.
      recipe: everything needed to run it again, ready for JSON.
      notices: one line each for what a user may want to know (truncated prompts, alpha, ...).
      masks: of methods that find one (diffedit): uint8 [h, w] for every picture, 255 where it might
        change; each can be given to another edit as `mask`.
    """

    image: Any
    recipe: dict
    notices: tuple[str, ...] = ()
    masks: tuple[np.ndarray, ...] = ()

    @property
    def images(self) -> list[np.ndarray]:
        """The pictures one by one, also for a single one."""
        return [self.image] if getattr(self.image, "ndim", 4) == 3 else list(self.image)

    def recipe_of(self, position: int) -> dict:
        """The recipe of one picture of a batch: run alone, it gives the same picture."""
        return _recipe_of(self.recipe, position, len(self.images))

    def save(self, path) -> list[str]:
        """Writes the picture (a batch needs a folder of its own: see the CLI) with its recipe."""
        if len(self.images) != 1:
            raise UserError(f"{len(self.images)} pictures do not fit into {path}")
        return picture_files.write(path, self.images[0], self.recipe_of(0))


def load(source="emoji", **options):
    """Loads a model: "emoji", a diffusers folder, a .safetensors or .ckpt file, or a hub id.

    Args:
      source: what to load; "emoji" is the small model that comes with the package.
      options: see `diffedit_jax.bundles.load` (dtype, variant, prediction_type, ema, ...).
    Returns: a bundle, the first argument of `edit` and `generate`.
    Example: `model = load("emoji")`.
    """
    from . import bundles

    return bundles.load(source, **options)


def edit(model, image, method: str, *, mask=None, example=None, size: int | None = None,
         every: bool = False, original_size: bool = False, watch=None,
         **parameters) -> Result:  # fmt: skip
    """Edits one picture or a batch of them by a registered method, in one compiled program.

    Args:
      model: a bundle, or anything `load` takes.
      image: path, PIL image, uint8 [h, w, 3], or a batch: a list of those, or [b, h, w, 3]; None
        for methods that can draw the picture themselves (prompt_to_prompt).
      method: a name of `methods()`.
      mask: for methods that take one: path, PIL image or [h, w], 1 where the picture may change;
        one for all pictures, or one per picture.
      example: for methods that take one: a picture of what to put there, as `image`; one for all
        pictures, or one per picture.
      size: the longer side of what the model sees, in pixels; the model's own size if not given.
      every: True runs every picture with every prompt and every seed; False pairs them up (lists
        of equal length; single values serve all).
      original_size: True resizes the result back to the picture's own size.
      watch: called after every step with (steps done, steps in all, function that makes a preview).
      parameters: the method's own; `methods()[method].parameters` lists them.
    Raises: UserError for a mistake that can be mended; NotFiniteError if a run breaks down.
    Example: `edit(load(), "cat.png", "sdedit", prompt="a dog on a blue background").image`.
    """
    known = find(method)
    model = load(model) if isinstance(model, str) else model
    known.check_model(model)
    if known.start == "noise":
        raise UserError(f"{method} draws pictures from noise; use generate")
    if image is None:
        others = {"mask": mask, "example": example, "size": size}
        return _drawn(known, model, parameters, every, watch, **others)
    pictures, batched = picture_files.read_all(image)
    masks = _listed(mask, one_rank=2)
    if masks:
        parameters["mask"] = masks
    if example is not None:
        parameters["example"] = [picture_files.read_example(e) for e in _listed(example, 3)]
    order, chosen = _paired(known, _with_defaults(known, model, parameters), len(pictures), every)
    pictures = [pictures[i] for i in order]
    frames = _frames(known, model, pictures, chosen, size, original_size)
    if masks:
        chosen["mask"] = np.stack(
            [f.apply_mask(_read_mask(known, m, p.pixels.shape[:2]))
             for f, p, m in zip(frames, pictures, chosen["mask"], strict=True)]
        )  # fmt: skip
    pixels = np.stack([f.apply(p.pixels) for f, p in zip(frames, pictures, strict=True)])
    with listening() as heard:
        edited = known.function(model, pixels.astype(np.float32) / 127.5 - 1, watch=watch, **chosen)
    out = [f.restore(e, original=original_size) for f, e in zip(frames, edited, strict=True)]
    files = {name: chosen.get(name) for name in ("example", "style")}
    inputs = {"image": pictures, "mask": masks, **files}
    chosen = {k: v for k, v in chosen.items() if k not in _FILES}
    shared = {**chosen, "size": size, "original_size": original_size}
    notices = [n for p in pictures for n in p.notices] + _told(model, chosen) + heard
    single = not batched and len(out) == 1
    found = _result(known, model, out, inputs, shared, notices, single)
    return dataclasses.replace(found, masks=_masks(heard.mask, frames, original_size))


def _masks(mask, frames, original: bool) -> tuple[np.ndarray, ...]:
    """What a method found, on the pictures' own parts of the canvas."""
    if mask is None:
        return ()
    grey = np.round(np.asarray(mask) * 255).astype(np.uint8)[..., None]
    cut = [f.restore(m, original=original) for f, m in zip(frames, grey, strict=True)]
    return tuple(np.ascontiguousarray(m[..., 0]) for m in cut)


def generate(model, prompt, *, every: bool = False, watch=None, **parameters) -> Result:
    """Draws one picture per prompt; a list of prompts or seeds makes a batch.

    Args:
      model: a bundle, or anything `load` takes.
      prompt: a text or a list of texts.
      every: True draws every prompt with every seed; False pairs them up.
      watch: as for `edit`.
      parameters: those of the method "generate".
    Example: `generate(load(), "a cat on a blue background", seed=0).image`.
    """
    known = find("generate")
    model = load(model) if isinstance(model, str) else model
    known.check_model(model)
    return _drawn(known, model, {"prompt": prompt, **parameters}, every, watch)


def _drawn(known: Method, model, parameters: dict, every: bool, watch, **unusable) -> Result:
    """Runs a method without a picture, one result per prompt."""
    if known.start == "picture":
        raise UserError(f"{known.name} needs a picture")
    for name in (name for name, value in unusable.items() if value is not None):
        raise UserError(f"{name} belongs to a picture; {known.name} was given none")
    parameters = _with_defaults(known, model, parameters)
    single = isinstance(parameters["prompt"], str) and np.ndim(parameters["seed"]) == 0
    _, chosen = _paired(known, parameters, 1, every)
    with listening() as heard:
        out = list(known.function(model, None, watch=watch, **chosen))
    return _result(known, model, out, {}, chosen, _told(model, chosen) + heard, single)


def _frames(known: Method, model, pictures, chosen: dict, size, original_size: bool) -> list:
    """Where the pictures sit on one canvas, as the method wants it."""
    cut = known.cuts(chosen)
    if cut and original_size:
        raise UserError("what the official rule cuts away cannot come back; leave the original "
                        "size or compat out")  # fmt: skip
    sizes = [p.pixels.shape for p in pictures]
    return picture_files.common_frames(sizes, size or model.size, model.size // 8, cut)


def _with_defaults(known: Method, model, given: dict) -> dict:
    """The caller's parameters over the model's own defaults over the method's."""
    own = {k: v for k, v in model.defaults.items() if k in known.parameters}
    return known.complete({**own, **{k: v for k, v in given.items() if v is not None}})


def _paired(known: Method, parameters: dict, pictures: int, every: bool):
    """(which picture, its parameters) for a batch: pairs lists up, or takes every combination."""
    chosen = {k: _texts(k, v) if k in _TEXTS else v for k, v in parameters.items()}
    lists = {
        k: list(v)
        for k, v in chosen.items()
        if k not in _OF_A_BATCH and isinstance(v, list | tuple | np.ndarray) and np.ndim(v) != 0
    }
    lists["image"] = list(range(pictures))
    if every:
        axes = {k: v for k, v in lists.items() if k in ("image", "prompt", "seed")}
        combos = list(itertools.product(*axes.values()))
        lists |= {k: [c[i] for c in combos] for i, k in enumerate(axes)}
    count = max(len(v) for v in lists.values())
    for name, values in lists.items():
        if len(values) not in (1, count):
            raise UserError(f"{len(values)} values for {name}, but {count} for the others")
        lists[name] = values * (count // len(values))
    order = lists.pop("image")
    return order, {**chosen, **{k: v for k, v in lists.items() if k in chosen}}


def _texts(name: str, value) -> list[str] | None:
    """One text or a list of texts -> a list."""
    texts = [value] if isinstance(value, str) else value
    if texts is None:
        return None
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{name} must be a text or a list of texts")
    return list(texts)


def _listed(value, one_rank: int) -> list | None:
    """One mask or example, or several -> a list."""
    if value is None or isinstance(value, list | tuple):
        return value and list(value)
    if isinstance(value, np.ndarray) and value.ndim > one_rank:
        return list(value)
    return [value]


def _read_mask(known: Method, mask, size) -> np.ndarray:
    """[h, w] in [0, 1]; refuses one that confines nothing, or everything."""
    read = picture_files.read_mask(mask, size)
    if known.told_by == "example" and (read > 0.5).all():
        raise UserError("the mask covers the whole picture: nothing would be left to fit into")
    confines = known.role and not known.parameters["mask"].required
    if confines and not read.any():
        raise UserError("the mask is empty: nothing would change")
    if confines and (read == 1).all():
        raise UserError("the mask covers the whole picture; leave it out")
    return read


def _told(model, parameters: dict) -> list[str]:
    """Notices about the texts: what the tokenizer had to cut off."""
    texts = [t for name in _TEXTS for t in parameters.get(name) or []]
    return list(model.text_notices(list(dict.fromkeys(texts))))


def _result(known, model, out, inputs, parameters, notices: Sequence[str], single: bool) -> Result:
    same = len({o.shape for o in out}) == 1
    image = out[0] if single else np.stack(out) if same else out
    written = recipes.make(known.name, model.origin, inputs, parameters)
    return Result(image, written, tuple(dict.fromkeys(notices)))


def _recipe_of(recipe: dict, position: int, count: int) -> dict:
    """One picture's part of a batch's recipe; its own number keeps its noise."""

    def own(value):
        return value[position] if isinstance(value, list) and len(value) == count else value

    parameters = {k: own(v) for k, v in recipe["parameters"].items()}
    numbered = isinstance(recipe["parameters"].get("seed"), list)
    if not numbered and isinstance(parameters.get("index"), int):
        parameters["index"] += position
    inputs = {k: own(v) for k, v in recipe["inputs"].items()}
    return {**recipe, "inputs": inputs, "parameters": parameters}
