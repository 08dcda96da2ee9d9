"""`diffedit replay`: run the recipe that a picture carries again, and say how the two compare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from .. import api, images, recipe
from ..errors import UserError
from ..methods.registry import find
from .progress import Progress
from .timing import Timing
from .values import checked_prompt, checked_seed, parameter

_TEXTS = ("prompt", "source", "negative")


def replay(options: argparse.Namespace) -> None:
    """Runs PICTURE's recipe with the same model, inputs and numbers; prints the difference."""
    picture = Path(options.picture)
    said = recipe.from_png(picture)
    out = Path(options.out) if options.out else picture.with_suffix(".replay.png")
    images.check_writable(out)
    before = images.read(picture).pixels
    method = find(said["method"])
    arguments = _arguments(method, said, picture.parent)
    with Timing() as timing, Progress(options.quiet) as progress:
        progress.stage("loading the model")
        with timing.part("load"):
            model = _model(said["model"], options.model)
        progress.stage(method.name)
        with timing.part("run"):
            result = _run(
                method, model, arguments, lambda done, total, _: progress.step(done, total)
            )
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
    sizes = {name: given.pop(name, None) for name in ("size", "original_size")}
    if not isinstance(sizes["size"], int | None) or not isinstance(
        sizes["original_size"], bool | None
    ):
        raise UserError("the recipe's size is damaged")
    if given.pop("noise", None) is not None:
        raise UserError("the recipe was made with a noise array, which no file holds")
    checked = {name: _value(method, name, value) for name, value in given.items()}
    found = {k: v for k, v in {**checked, **sizes}.items() if v is not None}
    return {**found, **recipe.inputs_of(said, folder)}


def _value(method, name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "seed":
        return checked_seed(value)
    if name in _TEXTS:
        texts = value if isinstance(value, list) else [value]
        return [checked_prompt(name, text) for text in texts]
    return parameter(method, name, value)


def _model(said: dict, moved: str | None) -> Any:
    options = said.get("options") or {}
    if not isinstance(options, dict) or not set(options) <= {
        "dtype",
        "variant",
        "prediction_type",
        "ema",
    }:
        raise UserError("the recipe's options of the model are damaged")
    model = api.load(moved or said["source"], **options)
    if said.get("digest") not in (None, model.origin.get("digest")):
        raise UserError(
            f"the model {moved or said['source']} has changed since the recipe was written"
        )
    return model


def _run(method, model, arguments: dict, watch) -> api.Result:
    if method.start == "noise":
        return api.generate(model, watch=watch, **arguments)
    image = arguments.pop("image", None)
    if image is None:
        raise UserError("the recipe names no picture")
    return api.edit(model, image, method.name, watch=watch, **arguments)


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
