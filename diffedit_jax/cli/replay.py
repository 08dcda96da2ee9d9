"""`diffedit replay`: run the recipe that a picture carries again, and say how the two compare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from .. import api, images, recipe
from ..errors import UserError
from ..methods.registry import find
from .jobs import FILES, MAX_SIDE, MIN_SIDE, TEXTS
from .progress import Progress
from .sweep import one_cell
from .timing import Timing
from .values import checked_prompt, checked_seed, parameter

_LOADING = {"dtype", "param_dtype", "variant", "prediction_type", "ema"}


def replay(options: argparse.Namespace) -> None:
    """Runs PICTURE's recipe with the same model, inputs and numbers; prints the difference."""
    picture = Path(options.picture)
    said = recipe.from_png(picture)
    out = Path(options.out) if options.out else picture.with_suffix(".replay.png")
    images.check_writable(out)
    said, before = one_cell(said, images.read(picture).pixels, options.cell)
    method = find(said["method"])
    arguments = _arguments(method, said, picture.parent)
    with Timing() as timing, Progress(options.quiet) as progress:
        progress.stage("loading the model")
        with timing.part("load"):
            model = _model(said, options)
        progress.stage(method.name)
        with timing.part("run"):
            result = _run(method, model, arguments, progress)
        for text in (*_surroundings(said, result.recipe), *images.write(out, *_only(result))):
            progress.note(f"note: {text}")
        progress.note(f"wrote {out} in {timing}")
    print(difference(before, result.images[0]))


def difference(before: np.ndarray, after: np.ndarray) -> str:
    """One line: identical, or how far apart two pictures are."""
    if before.shape != after.shape:
        return f"different: {_sides(before)} before, {_sides(after)} now"
    gap = np.abs(before.astype(np.float64) - after)
    if gap.max() == 0:
        return "identical"
    decibels = 10 * np.log10(255**2 / np.mean(gap**2))
    return f"different: PSNR {decibels:.1f} dB, at most {gap.max():.0f} of 255 apart"


def _arguments(method, said: dict, folder: Path) -> dict[str, Any]:
    """The recipe's parameters, each checked against the method: a recipe may come from anywhere."""
    given = dict(said["parameters"])
    size, original = given.pop("size", None), given.pop("original_size", None)
    sides = [n for n in (size, given.get("height"), given.get("width")) if n is not None]
    if not isinstance(original, bool | None) or not all(map(_is_side, sides)):
        raise UserError("the recipe's size is damaged")
    inputs = said["inputs"]
    if not set(inputs) <= {"image", *FILES} or not all(
        isinstance(v, dict) for v in inputs.values()
    ):
        raise UserError("the recipe's inputs are damaged, or of several pictures")
    if given.pop("noise", None) is not None:
        raise UserError("the recipe was made with a noise array, which no file holds")
    checked = {name: _value(method, name, value) for name, value in given.items()}
    sizes = {"size": size, "original_size": original}
    found = {k: v for k, v in {**checked, **sizes}.items() if v is not None}
    return {**found, **recipe.inputs_of(said, folder)}


def _value(method, name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "seed":
        return checked_seed(value)
    if name in TEXTS:
        return [
            checked_prompt(name, value[0] if isinstance(value, list) and len(value) == 1 else value)
        ]
    return parameter(method, name, value)


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and MIN_SIDE <= value <= MAX_SIDE


def _model(whole: dict, options: argparse.Namespace) -> Any:
    """The recipe's model, at its old place or where --model says; refuses another one."""
    said, adapters = whole["model"], recipe.adapters_of(whole, Path(options.picture).parent)
    chosen = said.get("options") or {}
    if not isinstance(chosen, dict) or not set(chosen) <= _LOADING:
        raise UserError("the recipe's options of the model are damaged")
    source = options.model or said["source"]
    chosen = {**chosen, **{name: files for name, files in adapters.items() if files}}
    model = api.load(source, **chosen, **({"config": options.config} if options.config else {}))
    if said.get("digest") not in (None, model.origin.get("digest")):
        raise UserError(f"the model {source} has changed since the recipe was written")
    return model


def _run(method, model, arguments: dict, progress: Progress) -> api.Result:
    def watch(done: int, total: int, _) -> None:
        progress.step(done, total)

    if method.start == "noise":
        return api.generate(model, watch=watch, **arguments)
    image = arguments.pop("image", None)
    if not image and method.start == "picture":
        raise UserError("the recipe names no picture")
    return api.edit(model, image or None, method.name, watch=watch, **arguments)


def _surroundings(before: dict, now: dict) -> list[str]:
    """What may explain a difference: other versions, another device."""
    told = []
    old = before.get("versions") if isinstance(before.get("versions"), dict) else {}
    for name, version in now["versions"].items():
        if old.get(name) not in (None, version):
            told.append(f"{name} was {old[name]!s:.40}, is {version}")
    if before.get("device") not in (None, now["device"]):
        told.append(f"the device was {before['device']!s:.60}, is {now['device']}")
    return told


def _only(result: api.Result) -> tuple[np.ndarray, dict]:
    if len(result.images) != 1:
        raise UserError("the recipe makes several pictures; replay one of them")
    return result.images[0], result.recipe_of(0)


def _sides(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
