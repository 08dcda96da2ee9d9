"""Editing methods, ours or those of diffusers, on one small model: entries of a contest."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import random_model
from .contest import Entry, hold_to_cores, serve
from .method_reference import COUNTERPARTS, GIVEN, INSTRUCTION, References, hole, picture

STRENGTH = 0.8  # of image-to-image; the default of sdedit
SISTERS = {8: "instruct", 9: "example"}  # models of other input channels: emoji-instruct, ...


def model_for(name: str, model: str) -> str | None:
    """The model that a method runs on: the given one, its sister of more channels, or None."""
    from ..bundles.loading import ASSETS
    from ..methods import find

    channels = find(name).channels
    if 4 in channels:
        return model
    sister = f"{model}-{SISTERS[min(channels)]}"
    if (ASSETS / sister).is_dir() or Path(sister).is_dir():
        return sister
    return model if Path(model).is_dir() else None


def entries(options: argparse.Namespace, torch: bool, scratch: Path) -> tuple[list, dict]:
    """(pairs of (our entry, its counterpart or None), {what is left out: why})."""
    from ..methods import methods

    model, names = options.model, options.methods.split(",") if options.methods else [*methods()]
    if model == random_model.FOLDER:
        model = _random_models(scratch / model, names)
    pairs, left_out = [], {}
    for name in names:
        where = model_for(name, model)
        if where is None:
            left_out[name] = "no such model ships"
            continue
        if lacks := sorted(_required(name) - arguments(name, 64, options.steps).keys()):
            left_out[name] = f"it needs {' and '.join(lacks)}, which this measurement has not"
            continue
        other = torch and name in COUNTERPARTS
        pairs.append((_entry("ours", name, where, options),
                      _entry("torch", name, where, options) if other else None))  # fmt: skip
    if not torch:
        left_out["diffusers"] = "torch and diffusers are not installed"
    return pairs, left_out


def _random_models(folder: Path, names: list[str]) -> str:
    """Random weights of every number of channels that these methods want; the plain model."""
    from ..methods import find

    for channels in {4 if 4 in find(name).channels else min(find(name).channels) for name in names}:
        end = f"-{SISTERS[channels]}" if channels in SISTERS else ""
        random_model.write_random_model(folder.with_name(folder.name + end), channels)
    return str(folder)


def _required(name: str) -> set[str]:
    from ..methods import find

    return {key for key, parameter in find(name).parameters.items() if parameter.required}


def _entry(side: str, name: str, model: str, options: argparse.Namespace) -> Entry:
    words = (side, "--steps", str(options.steps), "--threads", str(options.threads))
    title = name if side == "ours" else f"diffusers {name}"
    module = "diffedit_jax.bench.method_entry"
    return Entry(title, module, words, request=f"{name} {model}")


class Methods(dict):
    """{"method model": a run of it}; compiles a method the first time it is asked for."""

    def __init__(self, steps: int):
        self._steps, self._models = steps, {}

    def __missing__(self, request: str) -> Callable[[], Any]:
        import diffedit_jax as de

        name, source = request.split(" ", 1)
        if source not in self._models:
            self._models[source] = de.load(source)
        model = self._models[source]
        given = arguments(name, model.size, self._steps)
        image = None if name == "generate" else picture(model.size)

        def run():
            if image is None:
                return de.generate(model, seed=0, **given)
            return de.edit(model, image, name, seed=0, **given)

        run()
        self[request] = run
        return run


def arguments(name: str, side: int, steps: int) -> dict[str, Any]:
    """What a method is given: prompts, steps, and what it cannot do without."""
    from ..methods import find

    takes = find(name).parameters
    given = {key: value for key, value in GIVEN.items() if key in takes}
    given |= {"steps": steps, "solver": "ddim"} if name in COUNTERPARTS else {"steps": steps}
    given |= {"strength": 1.0} if name == "inpaint" else {}
    if "mask" in takes and name in ("inpaint", "paint_by_example"):
        given["mask"] = hole(side)
    if "example" in takes:
        given["example"] = picture(side)
    if name == "instruct_pix2pix":
        given["prompt"] = INSTRUCTION
    return {key: value for key, value in given.items() if key in takes}


def evaluations(name: str, steps: int) -> tuple[int, int]:
    """(network calls, rows in one call) of the run that is timed."""
    from ..methods import find

    known = find(name)
    return known.evaluations(known.complete(arguments(name, 64, steps)))


def main(args: list[str]) -> int:
    """Gets ready, then serves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["ours", "torch"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(args)
    hold_to_cores(options.threads)
    if options.side == "ours":
        serve(Methods(options.steps))
    else:
        import torch

        torch.set_num_threads(options.threads)
        with tempfile.TemporaryDirectory() as scratch:
            serve(References(options.steps, STRENGTH, scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
