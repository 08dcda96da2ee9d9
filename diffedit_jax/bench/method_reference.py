"""What diffusers has of our methods, on torch: the other side of `bench speed --what methods`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

GIVEN = {"prompt": "a dog on a blue background", "source": "a cat on a blue background"}
INSTRUCTION = "turn the cat into a dog"

# our name -> the pipeline of diffusers that does the same
COUNTERPARTS = {
    "generate": "StableDiffusionPipeline",
    "sdedit": "StableDiffusionImg2ImgPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
    "diffedit": "StableDiffusionDiffEditPipeline",
    "instruct_pix2pix": "StableDiffusionInstructPix2PixPipeline",
    "paint_by_example": "PaintByExamplePipeline",
}
_NO_CHECKER = {"safety_checker": None, "requires_safety_checker": False}


def picture(side: int) -> np.ndarray:
    """uint8 [side, side, 3], a gradient."""
    ramp = np.linspace(0, 255, side)
    red, green = np.meshgrid(ramp * 0.75, ramp * 0.5)
    return np.stack([red, green, 255 - red], axis=-1).astype(np.uint8)


def hole(side: int) -> np.ndarray:
    """uint8 [side, side], 255 in the middle half."""
    return np.pad(np.full((side // 2, side // 2), 255, np.uint8), side // 4)


def plain_folder(source: str, scratch: str) -> Path:
    """A diffusers folder that holds all of the model: it is written where `source` is a name."""
    if Path(source).is_dir():
        return Path(source)
    import diffedit_jax as de
    from diffedit_jax.bundles import save

    folder = Path(scratch) / source
    if not folder.exists():
        save(de.load(source), folder)
    return folder


class References(dict):
    """{"method model": a run of diffusers' own}; loads a pipeline when it is first asked for."""

    def __init__(self, steps: int, strength: float, scratch: str):
        self._steps, self._strength, self._scratch = steps, strength, scratch

    def __missing__(self, request: str) -> Callable[[], Any]:
        method, source = request.split(" ", 1)
        run = self._run(method, plain_folder(source, self._scratch))
        run()
        self[request] = run
        return run

    def _run(self, method: str, folder: Path) -> Callable[[], Any]:
        import torch
        from PIL import Image

        pipeline = _pipeline(method, folder)
        side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        image, mask = Image.fromarray(picture(side)), Image.fromarray(hole(side))
        call = getattr(self, f"_{method}")

        def run():
            return call(pipeline, image, mask, torch.Generator().manual_seed(0))

        return run

    def _generate(self, pipeline, image, mask, generator):
        return pipeline(GIVEN["prompt"], num_inference_steps=self._steps, generator=generator)

    def _sdedit(self, pipeline, image, mask, generator):
        return pipeline(GIVEN["prompt"], image, self._strength, num_inference_steps=self._steps,
                        generator=generator)  # fmt: skip

    def _inpaint(self, pipeline, image, mask, generator):
        return pipeline(GIVEN["prompt"], image, mask, num_inference_steps=self._steps,
                        height=image.height, width=image.width, strength=1.0,
                        generator=generator)  # fmt: skip

    def _diffedit(self, pipeline, image, mask, generator):
        """Its three parts: the mask from two prompts, inversion, decoding inside the mask."""
        told = dict(num_inference_steps=self._steps, generator=generator)
        prompt, source = GIVEN["prompt"], GIVEN["source"]
        found = pipeline.generate_mask(image, target_prompt=prompt, source_prompt=source, **told)
        if not found.any():  # random weights: any mask costs the same
            found = np.ones_like(found)
        path = pipeline.invert(source, image, inpaint_strength=0.8, **told).latents
        return pipeline(prompt, found, path, inpaint_strength=0.8, **told)

    def _instruct_pix2pix(self, pipeline, image, mask, generator):
        return pipeline(INSTRUCTION, image, num_inference_steps=self._steps, generator=generator)

    def _paint_by_example(self, pipeline, image, mask, generator):
        return pipeline(image, image, mask, num_inference_steps=self._steps, height=image.height,
                        width=image.width, generator=generator)  # fmt: skip


def _pipeline(method: str, folder: Path) -> Any:
    import diffusers
    import torch

    if method == "paint_by_example":
        pipeline = _by_example(folder)
    else:
        kind = getattr(diffusers, COUNTERPARTS[method])
        pipeline = kind.from_pretrained(folder, torch_dtype=torch.float32, **_NO_CHECKER)
    if method == "diffedit":
        schedule = pipeline.scheduler.config
        pipeline.inverse_scheduler = diffusers.DDIMInverseScheduler.from_config(schedule)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _by_example(folder: Path) -> Any:
    """Put together here, for `from_pretrained` no longer finds the module of the encoder."""
    import diffusers
    from diffusers.pipelines.deprecated.paint_by_example.image_encoder import (
        PaintByExampleImageEncoder,
    )
    from transformers import CLIPImageProcessor, CLIPVisionConfig

    index = json.loads((folder / "model_index.json").read_text())
    kinds = {name: getattr(diffusers, index[name][1]) for name in ("unet", "vae", "scheduler")}
    parts = {name: kind.from_pretrained(folder / name) for name, kind in kinds.items()}
    place = folder / "image_encoder"
    config = CLIPVisionConfig.from_pretrained(place)
    side = config.image_size
    encoder = PaintByExampleImageEncoder.from_pretrained(place, config=config)
    return diffusers.PaintByExamplePipeline(
        **parts,
        **_NO_CHECKER,
        image_encoder=encoder.float(),  # files of 16 bits stay 16 bits by themselves
        feature_extractor=CLIPImageProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ),
    )
