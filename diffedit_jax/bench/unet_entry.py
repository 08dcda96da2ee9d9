"""One forward pass of a Stable Diffusion UNet on the CPU, ours or torch's: an entry of a contest.

The weights are made here, the same for everybody: normal with the variance of the fan-in.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .contest import hold_to_cores, serve

LARGE = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "attention_head_dim": 8,
}
SMALL = {
    "sample_size": 16,
    "cross_attention_dim": 32,
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}


def random_weights(module: Any, example: tuple) -> dict:
    """Parameters of a network without a checkpoint, numpy float32, never stored.

    kernel ~ normal / sqrt(fan in), scale = 1, bias = 0; each from its own name, so that the
    order of making them does not matter. `example`: arguments that the network accepts.
    """
    import jax
    from flax.traverse_util import flatten_dict, unflatten_dict

    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *example))["params"]
    return unflatten_dict({k: _leaf(k, v.shape) for k, v in flatten_dict(shapes).items()})


def unet_weights(module: Any, config: dict) -> dict:
    """Random parameters of a UNet of that config."""
    import jax.numpy as jnp

    side, channels = config["sample_size"], config.get("in_channels", 4)
    x, text = (
        jnp.zeros((1, side, side, channels)),
        jnp.zeros((1, 77, config["cross_attention_dim"])),
    )
    return random_weights(module, (x, 0.0, text))


def _leaf(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    if path[-1] not in ("kernel", "embedding"):
        return np.full(shape, float(path[-1] == "scale"), np.float32)
    draw = np.random.default_rng(zlib.crc32("/".join(path).encode()))
    return draw.standard_normal(shape, np.float32) * np.float32(math.prod(shape[:-1]) ** -0.5)


def inputs(config: dict, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(latents [n, h, w, 4], times [n], text [n, 77, d])."""
    draw = np.random.default_rng(0)
    side, width = config["sample_size"], config["cross_attention_dim"]
    x = draw.standard_normal((batch, side, side, 4), np.float32)
    return (
        x,
        np.full(batch, 501.0, np.float32),
        draw.standard_normal((batch, 77, width), np.float32),
    )


def ours(config: dict, batch: int, kind: str) -> Callable[[], np.ndarray]:
    """Our network: float32, or float32 between layers with bfloat16 operands in products."""
    import jax
    import jax.numpy as jnp

    from ..models import UNet

    half = kind == "bfloat16"
    unet = UNet.from_config(config, operands=jnp.bfloat16 if half else None)
    weights = unet_weights(unet, config)
    if half:
        weights = jax.tree.map(lambda a: a.astype(jnp.bfloat16) if a.ndim > 1 else a, weights)
    weights = jax.tree.map(jnp.asarray, weights)
    forward = jax.jit(lambda weights, *given: unet.apply({"params": weights}, *given)[0])
    given = [jnp.asarray(a) for a in inputs(config, batch)]
    return lambda: np.asarray(forward(weights, *given))


def theirs(config: dict, batch: int, kind: str) -> Callable[[], np.ndarray]:
    """The network of diffusers on torch, all of it in one type."""
    import torch
    from diffusers import UNet2DConditionModel

    from ..checkpoints.load import export
    from ..models import UNet

    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(config)
    weights = export(unet_weights(UNet.from_config(config), config))
    dtype = getattr(torch, kind)
    state = {key: torch.from_numpy(value).to(dtype) for key, value in weights.items()}
    model.load_state_dict(state, assign=True)
    model.eval()
    x, t, text = (torch.from_numpy(a) for a in inputs(config, batch))
    x, text = x.permute(0, 3, 1, 2).contiguous().to(dtype), text.to(dtype)

    @torch.inference_mode()
    def run():
        out = model(x, t, encoder_hidden_states=text).sample
        return out.float().permute(0, 2, 3, 1).numpy()

    return run


def main(args: list[str]) -> int:
    """Gets ready, runs once, then serves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["ours", "torch"])
    parser.add_argument("kind", choices=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path, help="where the first result goes (.npy)")
    options = parser.parse_args(args)
    hold_to_cores(options.threads)
    if options.side == "torch":
        import torch

        torch.set_num_threads(options.threads)
    config = SMALL if options.tiny else LARGE
    make = {"ours": ours, "torch": theirs}[options.side]
    run = make(config, options.batch, options.kind)
    began = time.perf_counter()
    result = run()
    first = time.perf_counter() - began
    if options.output:
        np.save(options.output, result)
    serve({"run": run}, first_call=first)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
