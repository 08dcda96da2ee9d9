"""Editing methods, or the image-to-image of diffusers, on one small model: entries of a contest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .contest import Entry, hold_to_cores, serve

REFERENCE = "diffusers img2img"
GIVEN = {"prompt": "a dog on a blue background", "source": "a cat on a blue background"}
STRENGTH = 0.8  # of image-to-image; the default of sdedit


def folder_of(model: str) -> Path:
    """The diffusers folder of a model that is given by name or by its folder."""
    if model == "emoji":
        return Path(__file__).resolve().parents[1] / "assets" / "emoji"
    return Path(model)


def entries(model: str, steps: int, threads: int, torch: bool) -> tuple[list[Entry], dict]:
    """(entries, {what is left out: why}): the reference first, then every method that can run."""
    from ..methods import methods

    words = (model, "--steps", str(steps), "--threads", str(threads))
    module = "diffedit_jax.bench.method_entry"
    found, left_out = [], {}
    if torch:
        found.append(Entry(REFERENCE, module, ("torch", *words)))
    else:
        left_out[REFERENCE] = "torch and diffusers are not installed"
    for name, method in methods().items():
        needs = [p.name for p in method.parameters.values() if p.required]
        missing = [need for need in needs if need not in (*GIVEN, "mask")]
        if method.start == "noise":
            missing = ["no picture"]
        elif 4 not in method.channels:
            missing = ["another kind of model"]
        if missing:
            left_out[name] = f"needs {', '.join(missing)}"
            continue
        found.append(Entry(name, module, ("ours", *words), request=name))
    return found, left_out


def picture() -> np.ndarray:
    """uint8 [64, 64, 3]."""
    rows = np.arange(64, dtype=np.uint8)
    red, green = np.meshgrid(rows * 3, rows * 2)
    return np.stack([red, green, 255 - red], axis=-1)


class Methods(dict):
    """{name: a run of that method}; compiles a method the first time it is asked for."""

    def __init__(self, model: str, steps: int):
        import diffedit_jax as de

        self._model, self._steps, self._edit = de.load(model), steps, de.edit

    def __missing__(self, name: str) -> Callable[[], Any]:
        from ..methods import find

        takes = find(name).parameters
        given = {key: value for key, value in GIVEN.items() if key in takes}
        given |= {"steps": self._steps} if "steps" in takes else {}
        if "mask" in takes:
            given["mask"] = np.pad(np.ones((32, 32), np.uint8), 16) * 255

        def run():
            return self._edit(self._model, picture(), name, seed=0, **given)

        run()
        self[name] = run
        return run


def reference(model: str, steps: int) -> Callable[[], Any]:
    """Image-to-image of diffusers on torch, warmed up."""
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline
    from PIL import Image

    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(
        folder_of(model), safety_checker=None, requires_safety_checker=False
    ).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    image = Image.fromarray(picture())

    def run():
        return pipeline(GIVEN["prompt"], image, STRENGTH, num_inference_steps=steps).images

    run()
    return run


def main(args: list[str]) -> int:
    """Gets ready, then serves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["ours", "torch"])
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(args)
    hold_to_cores(options.threads)
    if options.side == "ours":
        serve(Methods(options.model, options.steps))
    else:
        import torch

        torch.set_num_threads(options.threads)
        serve({"run": reference(options.model, options.steps)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
