"""Pictures of a class, drawn by the model that is about to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..images import read, write
from ..methods.generate import generate

_PART = 16  # pictures of one call


def class_pictures(
    model: Any, prompts: Sequence[str], count: int, folder: Path, config: Any
) -> tuple[np.ndarray, list[int]]:
    """(uint8 [count, h, w, 3], which prompt each was drawn from); those in `folder` are kept.

    Picture i is drawn from prompt i mod len(prompts) and the noise of (config.seed, i) alone, so a
    cut-off run goes on with the same pictures.

    config: seed; class_steps and class_guidance of the drawing.
    Source: Ruiz et al. 2022, section 3.3; diffusers examples/dreambooth/train_dreambooth.py.
    """
    folder.mkdir(parents=True, exist_ok=True)
    which = [i % len(prompts) for i in range(count)]
    files = [folder / f"{i:05d}.png" for i in range(count)]
    for start in range(0, count, _PART):
        if all(file.is_file() for file in files[start : start + _PART]):
            continue
        prompt = [prompts[i % len(prompts)] for i in range(start, start + _PART)]
        made = generate(
            model, None, prompt=prompt, seed=config.seed, index=start,
            steps=config.class_steps, guidance=config.class_guidance,
        )  # fmt: skip
        for file, picture in zip(files[start : start + _PART], made, strict=False):
            write(file, picture)
    return np.stack([read(file).pixels for file in files]), which
