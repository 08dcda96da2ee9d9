"""A step of DreamBooth on the CPU, our trainer's or that of a torch script: an entry of a contest.

Both train the whole UNet and read frozen texts. Latents, noise and timesteps are given, the same to
both, with the latents of the autoencoder made before, as our trainer does. An even batch is half
subject, half class (prior preservation); an odd one is subject alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .contest import Entry, hold_to_cores, serve
from .method_reference import plain_folder

RATE, CLIP, PRIOR = 5e-6, 1.0, 1.0  # diffusers' train_dreambooth.py as its README runs it


def entries(model: str, batch: int, threads: int, torch: bool) -> list[Entry]:
    """Theirs, where torch is installed, and ours."""
    words = (model, "--batch", str(batch), "--threads", str(threads))
    sides = ["torch", "ours"] if torch else ["ours"]
    return [Entry(side, "diffedit_jax.bench.train_entry", (side, *words)) for side in sides]


def batch_of(batch: int, shape: tuple[int, int, int], words: int, tokens: int) -> dict:
    """A batch as the trainer takes it: latents and noise [n, *shape], times [n], ids [n, tokens].

    Args:
      shape: (height, width, channels) of the latents.
      words: size of the vocabulary.
    """
    draw = np.random.default_rng(0)
    latent, noise = (draw.standard_normal((batch, *shape), np.float32) for _ in range(2))
    ids = draw.integers(0, words, (batch, tokens), np.int32)
    return {"latent": latent, "noise": noise, "t": draw.integers(0, 1000, batch, np.int32),
            "ids": ids}  # fmt: skip


def ours(folder: Path, batch: int) -> Callable[[], float]:
    """The trainer's own step, jitted; it is compiled when it is first run."""
    import jax

    import diffedit_jax as de

    from ..training import sharding
    from ..training.frozen import place_frozen
    from ..training.objectives import prior_weights
    from ..training.optimisers import make_optimiser
    from ..training.settings import complete
    from ..training.state import create_state, shapes_of_state
    from ..training.step import make_step
    from ..training.tasks.dreambooth import full_task

    model = de.load(str(folder))
    config = complete(dict(rate=RATE, clip=CLIP, text_encoder=False, focus=-1, min_snr=0.0,
                           offset=0.0))  # fmt: skip
    task, optimiser, mesh = full_task(model, config), make_optimiser(config), sharding.make_mesh()
    shapes = shapes_of_state(task, optimiser, config, mesh)
    params = place_frozen(task, shapes.trained, mesh, config.compute)
    state = create_state(task, optimiser, config, mesh)
    text = model.texts[0].module
    given = batch_of(batch, model.latent_shape(model.size, model.size), text.vocab_size,
                     text.max_position_embeddings)  # fmt: skip
    if batch % 2 == 0:
        given["weight"] = prior_weights(batch // 2, batch // 2, PRIOR)
    del model  # its weights are in the state by now
    task = dataclasses.replace(task, params=None)
    step = make_step(task, optimiser, config, placed=jax.tree.map(lambda x: x.sharding, shapes))

    def run() -> float:
        nonlocal state
        state, metrics = step(state, params, sharding.spread(given, mesh))
        return float(metrics["loss"])

    return run


def theirs(folder: Path, batch: int) -> Callable[[], float]:
    """What the script does in a step, with diffusers' UNet and scheduler and torch's AdamW.

    Source: diffusers examples/dreambooth/train_dreambooth.py, the loop of main.
    """
    import torch
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).train()
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    text.requires_grad_(False)
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    optimiser = torch.optim.AdamW(unet.parameters(), lr=RATE)
    side = unet.config.sample_size
    words = text.config
    given = batch_of(batch, (side, side, unet.config.out_channels), words.vocab_size,
                     words.max_position_embeddings)  # fmt: skip
    x0, noise = (torch.from_numpy(given[k].transpose(0, 3, 1, 2).copy())
                 for k in ("latent", "noise"))  # fmt: skip
    t, ids = (torch.from_numpy(given[k]).long() for k in ("t", "ids"))

    def run() -> float:
        context = text(ids)[0]
        found = unet(scheduler.add_noise(x0, noise, t), t, context, return_dict=False)[0]
        velocity = scheduler.config.prediction_type == "v_prediction"
        target = scheduler.get_velocity(x0, noise, t) if velocity else noise
        loss = _loss(found, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), CLIP)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    return run


def _loss(found, target):
    """The mean squared error, of subject and class apart where the batch has both."""
    from torch.nn.functional import mse_loss

    if len(found) % 2:
        return mse_loss(found, target)
    subject, prior = (mse_loss(a, b) for a, b in zip(found.chunk(2), target.chunk(2), strict=True))
    return subject + PRIOR * prior


def main(args: list[str]) -> int:
    """Gets ready, makes two steps whose losses are told, then serves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["ours", "torch"])
    parser.add_argument("model", help="a model that ships, or a diffusers folder")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(args)
    hold_to_cores(options.threads)
    if options.side == "torch":
        import torch

        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        make = {"ours": ours, "torch": theirs}[options.side]
        run = make(plain_folder(options.model, scratch), options.batch)
    serve({"run": run}, losses=[run(), run()])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
