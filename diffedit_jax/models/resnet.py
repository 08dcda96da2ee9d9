"""Residual blocks and resampling shared by the UNet and the autoencoder."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffedit_jax.models.layers import Compute, Conv, GroupNorm, Linear

Picture = Float[Array, "n h w c"]
Result = Float[Array, "n h2 w2 c2"]


class ResnetBlock(nn.Module):
    """shortcut(x) + conv2(silu(norm2(conv1(silu(norm1 x)) + proj(silu temb)))).

    conv_shortcut (1x1) exists when the number of channels changes; time_emb_proj when `timed`.
    Source: diffusers models/resnet.py ResnetBlock2D.
    """

    in_features: int
    features: int
    groups: int = 32
    eps: float = 1e-5
    timed: bool = True
    compute: Compute = Compute()

    def setup(self):
        self.norm1 = GroupNorm(self.groups, self.eps, silu=True, compute=self.compute)
        self.conv1 = Conv(self.features, compute=self.compute)
        if self.timed:
            self.time_emb_proj = Linear(self.features, self.compute)
        self.norm2 = GroupNorm(self.groups, self.eps, silu=True, compute=self.compute)
        self.conv2 = Conv(self.features, compute=self.compute)
        if self.in_features != self.features:
            self.conv_shortcut = Conv(self.features, size=1, padding=0, compute=self.compute)

    def __call__(self, x: Picture, temb: Float[Array, "n d"] | None = None) -> Result:
        y = self.conv1(self.norm1(x))
        if self.timed:
            y = y + self.time_emb_proj(jax.nn.silu(temb))[:, None, None]
        y = self.conv2(self.norm2(y))
        return y + (x if self.in_features == self.features else self.conv_shortcut(x))


class Downsample(nn.Module):
    """3x3 convolution of stride 2; zeros on all sides, or (`one_sided`) right and bottom only."""

    features: int
    one_sided: bool = False
    compute: Compute = Compute()

    def setup(self):
        pad = (0, 1) if self.one_sided else (1, 1)
        self.conv = Conv(self.features, stride=2, padding=(pad, pad), compute=self.compute)

    def __call__(self, x: Picture) -> Result:
        return self.conv(x)


class Upsample(nn.Module):
    """Nearest x2, cropped to `size` (h, w) where the skip is odd, then a 3x3 convolution."""

    features: int
    compute: Compute = Compute()

    def setup(self):
        self.conv = Conv(self.features, compute=self.compute)

    def __call__(self, x: Picture, size: tuple[int, int] | None = None) -> Result:
        return self.conv(double(x, size))


def double(x: Picture, size: tuple[int, int] | None = None) -> Result:
    """Nearest-neighbour x2; equals nearest resizing to `size` when that is 2n or 2n - 1."""
    n, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)
    return x if size is None else x[:, : size[0], : size[1]]
