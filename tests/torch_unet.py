"""The reference network as a denoiser of ours, in float64: only the method can differ."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffedit_jax.core import Prediction
from tests.golden_models import GOLDEN


class TorchUNet(struct.PyTreeNode):
    """Asks diffusers' UNet from inside a compiled program; differentiable by the text."""

    net: Any = struct.field(pytree_node=False)
    kind: str = struct.field(pytree_node=False, default="epsilon")

    def __call__(self, x, step, cond, control=None):
        t = jnp.broadcast_to(step.t, x.shape[:-3]).astype(x.dtype)
        eps = _ask(self.net, x, t, cond.text.astype(x.dtype))
        return Prediction.of(self.kind, eps, x, step.alpha, step.sigma)


def torch_unet(folder="unet_sd1") -> TorchUNet:
    """The golden network in float64, its time embedding too, as the recorded runs have it."""
    import torch
    from diffusers import UNet2DConditionModel

    class Sinusoid(torch.nn.Module):
        def forward(self, t):
            half = net.config.block_out_channels[0] // 2
            rate = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / half)
            angle = t.double()[:, None] * rate
            return torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)

    torch.set_num_threads(1)
    net = UNet2DConditionModel.from_pretrained(GOLDEN / "models" / folder).double().eval()
    net.requires_grad_(False).time_proj = Sinusoid()
    return TorchUNet(net)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ask(net, x, t, text):
    return _called(functools.partial(_forward, net), x.shape, x.dtype, x, t, text)


def _ask_forward(net, x, t, text):
    return _ask(net, x, t, text), (x, t, text)


def _ask_backward(net, saved, slope):
    x, t, text = saved
    ask = functools.partial(_backward, net)
    by_text = _called(ask, text.shape, text.dtype, x, t, text, slope)
    return jnp.zeros_like(x), jnp.zeros_like(t), by_text


_ask.defvjp(_ask_forward, _ask_backward)


def _called(ask, shape, dtype, *arrays):
    """Calls the host with float64 arrays as bits: a callback's own thread would round them."""
    words = np.dtype(dtype).itemsize // 4

    def host(*packed):
        plain = [np.ascontiguousarray(p).view(dtype)[..., 0] for p in packed]
        out = np.ascontiguousarray(ask(*plain), dtype)
        return out[..., None].view(np.uint32)

    def bits(a):
        packed = jax.lax.bitcast_convert_type(a.astype(dtype), jnp.uint32)
        return packed if words == 2 else packed[..., None]

    like = jax.ShapeDtypeStruct((*shape, words), jnp.uint32)
    out = jax.pure_callback(host, like, *map(bits, arrays), vmap_method="broadcast_all")
    return jax.lax.bitcast_convert_type(out if words == 2 else out[..., 0], dtype)


def _told(x, t, text):
    """Any leading axes -> what torch takes."""
    import torch

    x, t, text = (torch.from_numpy(np.array(a, np.float64)) for a in (x, t, text))
    x = x.reshape(-1, *x.shape[-3:]).permute(0, 3, 1, 2)
    return x, t.reshape(-1), text.reshape(-1, *text.shape[-2:])


def _forward(net, x, t, text):
    import torch

    with torch.no_grad():
        out = net(*_told(x, t, text)).sample
    return out.permute(0, 2, 3, 1).numpy().reshape(x.shape)


def _backward(net, x, t, text, slope):
    import torch

    told, rows, words = _told(x, t, text)
    words.requires_grad_(True)
    out = net(told, rows, words).sample.permute(0, 2, 3, 1)
    slope = torch.from_numpy(np.array(slope, np.float64)).reshape(out.shape)
    (grad,) = torch.autograd.grad(out, words, slope)
    return grad.numpy().reshape(text.shape)
