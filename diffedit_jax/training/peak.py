"""What accelerators can do at most, for model FLOPs utilisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ..cost import flops

# FLOP/s of dense bfloat16 products (float16 where there is no bfloat16) of one chip, by the start
# of JAX's device_kind. Source: Google's TPU system architecture pages; NVIDIA's data sheets.
PEAKS = {
    "TPU v2": 45e12,
    "TPU v3": 123e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
    "Tesla T4": 65e12,
    "Tesla V100": 125e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}
_CORES = {"TPU v2": 2, "TPU v3": 2}  # devices that JAX shows for one chip


def peak_of(device: Any) -> float | None:
    """FLOP/s of one JAX device, or None where it is not known (any CPU)."""
    kind = device.device_kind
    names = [name for name in PEAKS if kind.startswith(name)]
    if not names:
        return None
    name = max(names, key=len)
    return PEAKS[name] / _CORES.get(name, 1)


def step_flops(loss: Callable, trained: Any, params: Any, batch: Any) -> int:
    """FLOPs of products and convolutions of the loss and its gradient for one global batch.

    Counted in the jaxpr as written: work that rematerialisation inside a network repeats counts
    twice, custom kernels not at all.

    Args:
      loss: `step.total_loss(task, config)`.
    """
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.PRNGKey(0)))
    step = jax.ShapeDtypeStruct((), "int32")
    gradient = jax.value_and_grad(loss, has_aux=True)
    return flops(gradient, trained, params, batch, keys, step)
