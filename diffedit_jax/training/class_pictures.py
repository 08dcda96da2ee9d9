"""Pictures of a class, drawn by the model that is about to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..images import write
from ..methods.generate import generate
from .agree import by_first
from .digests import of_tree
from .kept import forget, is_of, note, noted, per_call

_MOST = 16  # pictures of one call


def class_pictures(
    model: Any, prompts: Sequence[str], count: int, folder: Path, config: Any
) -> tuple[list[Path], list[int]]:
    """(files of pictures, which prompt each was drawn from); those in `folder` are kept.

    Picture i is drawn from prompt i mod len(prompts) and the noise of (config.seed, i) alone, so a
    cut-off run goes on with the same pictures. Pictures of other networks, prompts or settings are
    drawn anew.

    config: seed; class_steps and class_guidance of the drawing.
    Raises: UserError for pictures in `folder` that no run has noted.
    Source: Ruiz et al. 2022, section 3.3; diffusers examples/dreambooth/train_dreambooth.py.
    """
    which = [i % len(prompts) for i in range(count)]
    files = [folder / f"{i:05d}.png" for i in range(count)]
    by_first(lambda: _draw(model, prompts, files, config))
    return files, which


def _draw(model, prompts, files, config) -> None:
    """Those of the files that are not there, or all if they are of other things."""
    _clear(files[0].parent, _about(model, prompts, config))
    count, part = len(files), min(_MOST, per_call(model.size))
    for start in range(0, count, part):
        if all(file.is_file() for file in files[start : start + part]):
            continue
        prompt = [prompts[i % len(prompts)] for i in range(start, start + part)]
        made = generate(
            model, None, prompt=prompt, seed=config.seed, index=start,
            steps=config.class_steps, guidance=config.class_guidance,
        )  # fmt: skip
        for file, picture in zip(files[start : start + part], made, strict=False):
            write(file, picture)


def _about(model, prompts, config) -> dict:
    """What the pictures depend on."""
    texts = [text.params for text in model.texts]
    return {
        "model": of_tree([model.denoiser.params, texts, model.vae.params]),
        "class_prompts": list(prompts),
        **{name: config[name] for name in ("seed", "class_steps", "class_guidance")},
    }


def _clear(folder: Path, about: dict) -> None:
    """Nothing but pictures of `about` stays in the folder; it says so before the first is drawn."""
    there = sorted(folder.glob("*.png"))
    if there and noted(folder) is None:
        raise UserError(f"{folder} holds pictures that no run has drawn; move them elsewhere")
    if there and is_of(folder, about):
        return
    forget(folder)
    for file in there:
        file.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    note(folder, about)
