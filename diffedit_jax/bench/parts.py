"""Where the time of a UNet goes: every kind of layer timed alone, at the sizes the network uses."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ..models import UNet
from ..models.attention import attention
from ..models.layers import Conv, GroupNorm, LayerNorm, Linear
from ..models.transformer import CrossAttention
from . import unet_entry
from .contest import hold_to_cores, timed


@dataclasses.dataclass(frozen=True)
class Call:
    """A layer as it was called: what kind, and everything its time depends on."""

    kind: str
    shapes: tuple[tuple[int, ...], ...]  # of its inputs
    module: Any = None  # a copy without its place in the network


def calls(unet: UNet, config: dict, batch: int) -> collections.Counter:
    """{Call: how often one forward pass makes it}, found without computing anything."""
    found: collections.Counter = collections.Counter()

    def listen(inner, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__":
            if type(module) in (Conv, Linear, GroupNorm, LayerNorm):
                found[_layer(module, args[0])] += 1
            elif isinstance(module, CrossAttention):
                found[_attention(module, args)] += 1
        return inner(*args, **kwargs)

    given = unet_entry.inputs(config, batch)
    with nn.intercept_methods(listen):
        jax.eval_shape(lambda: unet.init(jax.random.key(0), *given))
    return found


def _layer(module: nn.Module, x: Any) -> Call:
    kind = type(module).__name__
    if isinstance(module, Conv):
        kind = f"convolution {module.size}x{module.size}"
    names = {"Linear": "linear", "GroupNorm": "group norm", "LayerNorm": "layer norm"}
    return Call(names.get(kind, kind), (x.shape,), module.clone(parent=None, name=None))


def _attention(module: CrossAttention, args: tuple) -> Call:
    x, other = args[0], args[1]
    kind = "attention, self" if x is other else "attention, text"
    width = module.features // module.heads
    shapes = tuple((a.shape[0], a.shape[1], module.heads, width) for a in (x, other))
    return Call(kind, shapes, module.compute)


def runnable(call: Call) -> Callable[[], Any]:
    """The layer alone, jitted, on made-up inputs."""
    arrays = [jnp.ones(shape, jnp.float32) for shape in call.shapes]
    if call.kind.startswith("attention"):
        q, k = arrays
        settings = dict(scale=q.shape[-1] ** -0.5, operands=call.module.operand_dtype)
        program = jax.jit(lambda q, k: attention(q, k, k, **settings)[0])
        return lambda: program(q, k).block_until_ready()
    shapes = jax.eval_shape(lambda: call.module.init(jax.random.key(0), arrays[0]))["params"]
    operand = call.module.compute.operand_dtype
    weights = jax.tree.map(
        lambda a: jnp.ones(a.shape, operand if len(a.shape) > 1 else jnp.float32), shapes
    )
    program = jax.jit(lambda weights, x: call.module.apply({"params": weights}, x))
    return lambda: program(weights, arrays[0]).block_until_ready()


def account(kind: str, config: dict, batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """{kind of layer: {"seconds", "cpu", "calls"}} of one forward pass, from layers timed alone.

    What layers cost together but not alone (copies between them, additions) is not in it.
    """
    unet = UNet.from_config(config, operands=jnp.bfloat16 if kind == "bfloat16" else None)
    sums: dict[str, dict[str, float]] = {}
    for call, count in calls(unet, config, batch).items():
        run = runnable(call)
        run()
        turns = [timed(run) for _ in range(repeats)]
        entry = sums.setdefault(call.kind, {"seconds": 0.0, "cpu": 0.0, "calls": 0})
        entry["seconds"] += count * statistics.median(turn["wall"] for turn in turns)
        entry["cpu"] += count * statistics.median(turn["cpu"] for turn in turns)
        entry["calls"] += count
    return sums


def main(args: list[str]) -> int:
    """Prints the account as one line of JSON (a process of its own, held to its cores)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(args)
    hold_to_cores(options.threads)
    config = unet_entry.SMALL if options.tiny else unet_entry.LARGE
    print(json.dumps(account(options.kind, config, options.batch, options.repeats)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
