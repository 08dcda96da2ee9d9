"""DreamBooth: the network itself learns a subject, in full or by a low-rank change (LoRA)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints.lora_write import write_lora
from ...checkpoints.tables.names import key_of, to_torch
from ...errors import UserError
from ...images import read
from ..agree import on_host
from ..class_pictures import class_pictures
from ..conditions import text_condition
from ..data import WHOLE, Share, Stepped
from ..folders import Together
from ..objectives import prior_weights
from ..selections import LowRank, Paths
from ..sharding import NETWORK_RULES
from ..subject import (
    latents_of,
    picture_data,
    read_subject,
    sentences,
    subject_batches,
    subject_data,
)
from ..task import Task
from ..words import rare_words
from .shared import frozen, limits_of, objective_of, told

_TABLE = ("embeddings", "token_embedding", "embedding")


def identifier(model: Any, config: Any) -> str:
    """The words for the subject: config.word, or a rare one if that is ""; then the class."""
    word = config.word
    if not word:
        table = model.texts[0].params
        for part in _TABLE:
            table = table[part]
        (word,) = rare_words(model.tokenizers[0], table, seed=config.seed)
    return f"{word} {config.kind}".strip()


def full_task(model: Any, config: Any) -> Task:
    """All of the UNet learns, and the text encoder if config.text_encoder."""
    chosen = Paths("(unet|text_encoder)/.*" if config.text_encoder else "unet/.*")
    return _task("dreambooth", model, config, chosen)


def lora(config: Any) -> LowRank:
    """The selection that a config of dreambooth_lora names."""
    return LowRank(
        rank=config.rank,
        alpha=config.alpha or None,
        targets=config.targets,
        convolutions=config.convolutions,
        convolution_alpha=config.convolution_alpha or None,
        start=config.start,
    )


def lora_task(model: Any, config: Any) -> Task:
    """Low-rank changes of the layers that config.targets names."""
    return _task("dreambooth_lora", model, config, lora(config))


def _task(name, model, config, selection):
    if len(model.texts) != 1:
        raise UserError(f"{name} is for models with one text encoder, not for SDXL")
    if config.get("cache_texts", 0) and (
        config.get("text_encoder") or "text" in str(config.get("targets"))
    ):
        raise UserError("the text encoder learns, so no state of it can be kept; set cache_texts=0")
    condition = text_condition(model.texts[0].module)
    objective = objective_of(model, config)
    about = (objective, selection, condition, NETWORK_RULES, limits_of(model))
    return Task(name, frozen(model, config), *about)


def prompts(model: Any, config: Any) -> dict[str, tuple[str, ...]]:
    """What a look at the run draws: the subject, and its class where that is to stay as it is."""
    found = {"subject": sentences(config.templates, identifier(model, config))}
    if config.prior:
        found["class"] = sentences(config.class_prompts, config.kind)
    return found


def dreambooth_batches(
    model: Any, config: Any, data: Path | None, out: Path
) -> Callable[[int], dict]:
    """Batches [subject; class] with the weights of prior preservation; without it, subject alone.

    "prior" marks the class, whose errors min-SNR leaves as they are, as diffusers' script does.

    config: batch (both parts together), prior (weight of the class, 0: none), class_pictures (how
    many; made by the model itself into out/class), class_prompt, kind, word, templates, flip.
    """
    subject, said = read_subject(model, data, config, identifier(model, config))
    ids = [model.tokenize(list(texts)) for texts in said]
    if not config.prior:
        return subject_batches(subject, ids, config.batch, config.seed, config.flip)
    half = _half(config)
    files, ids_of_class = _class(model, config, out)
    pictures = np.stack([read(file).pixels for file in files])
    parts = (
        subject_batches(subject, ids, half, config.seed, config.flip),
        subject_batches(latents_of(model, pictures), ids_of_class, half, config.seed + 1, 0.0),
    )
    own = {"weight": prior_weights(half, half, config.prior), "prior": np.arange(2 * half) >= half}

    def make(step: int) -> dict[str, np.ndarray]:
        first, second = (part(step) for part in parts)
        both = {name: np.concatenate([x, second[name]]) for name, x in first.items()}
        return {**both, **own}

    return make


def dreambooth_data(
    model: Any, config: Any, data: Path | None, out: Path, share: Share = WHOLE
) -> Any:
    """Data for `fit`: `dreambooth_batches`, or pictures that are read anew and encoded in the step.

    config: also cache_latents (False reads anew), crop (then "random" too), cache_texts (states of
    so many sentences are kept).
    share: of this process. Pictures that are read anew come in epochs, and every process has its
    own part [subject; class].
    """
    if config.get("cache_latents", True):
        made = Stepped(dreambooth_batches(model, config, data, out), share)
    else:
        made = _read_anew(model, config, data, out, share)
    return told(model, config, made)


def _read_anew(model, config, data, out, share):
    word = identifier(model, config)
    if not config.prior:
        return subject_data(model, data, config, word, config.batch, share=share)
    half, (files, ids) = _half(config), _class(model, config, out)
    own, other = prior_weights(1, 1, config.prior)
    subject = dict(share=share, also={"weight": own, "prior": False})
    kind = dict(share=share, also={"weight": other, "prior": True})
    return Together(
        subject_data(model, data, config, word, half, **subject),
        picture_data(model, files, ids, half, config.seed + 1, **kind),
    )


def _half(config) -> int:
    if config.batch % 2:
        raise UserError(f"batch={config.batch} is half subject, half class; make it even")
    return config.batch // 2


def _class(model, config, out) -> tuple[list[Path], list[np.ndarray]]:
    """Pictures of the class, and of each the ids [1, tokens] of what it was drawn from."""
    prompts = sentences(config.class_prompts, config.kind)
    files, which = class_pictures(model, prompts, config.class_pictures, out / "class", config)
    return files, [model.tokenize([prompts[k]]) for k in which]


def with_trained(model: Any, trained: Any) -> Any:
    """The model with what a full run has learned."""
    found = on_host(trained)
    model = model.replace(denoiser=model.denoiser.replace(params=found["unet"]))
    if "text_encoder" not in found:
        return model
    return model.replace(texts=(model.texts[0].replace(params=found["text_encoder"]),))


def write_low_rank(path: Path, selection: LowRank, trained: Any, layout: str) -> None:
    """A LoRA file of what was learned, "diffusers" or "kohya"."""
    layers = {}
    for place, (down, up, alpha) in selection.modules(on_host(trained)).items():
        up = up if down.ndim == 2 else up[None, None]
        name = key_of((*place.split("/"), "kernel")).removesuffix(".weight")
        layers[name] = (to_torch(down, "kernel"), to_torch(up, "kernel"), alpha)
    write_lora(path, layers, layout=layout)
