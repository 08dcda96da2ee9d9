"""The levels of the UNet: resnets with or without transformers, then a change of size."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffedit_jax.models.layers import Compute
from diffedit_jax.models.resnet import Downsample, ResnetBlock, Upsample
from diffedit_jax.models.transformer import Place, Transformer2D

Picture = Float[Array, "n h w c"]


class Level(nn.Module):
    """What the levels of a UNet share: names, sizes, and how their parts are made.

    name_: the level's name in the tree; place: "down", "mid" or "up"; order: the number of
    attention layers before it; depths: transformer blocks per attention (0: none) for each resnet.
    """

    title: str
    place: str
    order: int
    features: int
    depths: tuple[int, ...]
    heads: int
    linear: bool
    groups: int
    eps: float
    compute: Compute
    remat: bool

    def make_resnets(self, inputs: list[int]) -> list[nn.Module]:
        """One residual block per entry of `inputs` (its number of input channels)."""
        block = nn.remat(ResnetBlock) if self.remat else ResnetBlock
        return [
            block(width, self.features, self.groups, self.eps, compute=self.compute)
            for width in inputs
        ]

    def make_attentions(self) -> list[nn.Module]:
        """One Transformer2D per nonzero depth, numbered as in the checkpoint."""
        kind = nn.remat(Transformer2D) if self.remat else Transformer2D
        made, order = [], self.order
        for index, depth in enumerate(depth for depth in self.depths if depth):
            where = Place(f"{self.title}/attentions_{index}", self.place, order)
            made.append(
                kind(
                    self.features,
                    self.heads,
                    depth,
                    self.groups,
                    self.linear,
                    where,
                    self.compute,
                )
            )
            order += 2 * depth
        return made

    def keys_values(self, context: Any) -> dict[str, Any]:
        """{site name: (k, v)} of every cross attention of the level."""
        pairs = {}
        for attention in self.attentions:
            pairs |= attention.keys_values(context)
        return pairs


class DownLevel(Level):
    """DownBlock2D and CrossAttnDownBlock2D; every result is pushed as a skip."""

    in_features: int = 0
    last: bool = False

    def setup(self):
        inputs = [self.in_features] + [self.features] * (len(self.depths) - 1)
        self.resnets = self.make_resnets(inputs)
        self.attentions = self.make_attentions()
        self.downsamplers = [] if self.last else [Downsample(self.features, compute=self.compute)]

    def __call__(self, x: Picture, temb: Any, text: Any, control: Any) -> tuple:
        skips, taps = [], {}
        for index, resnet in enumerate(self.resnets):
            x = resnet(x, temb)
            if self.attentions:
                x, reads = self.attentions[index](x, text, control)
                taps |= reads
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            skips.append(x)
        return x, skips, taps


class MidLevel(Level):
    """UNetMidBlock2DCrossAttn: resnet, transformer, resnet."""

    def setup(self):
        self.resnets = self.make_resnets([self.features] * 2)
        self.attentions = self.make_attentions()

    def __call__(self, x: Picture, temb: Any, text: Any, control: Any) -> tuple:
        x, taps = self.resnets[0](x, temb), {}
        for attention in self.attentions:
            x, taps = attention(x, text, control)
        return self.resnets[1](x, temb), taps


class UpLevel(Level):
    """UpBlock2D and CrossAttnUpBlock2D; each resnet first takes one skip off the stack."""

    inputs: tuple[int, ...] = ()
    last: bool = False

    def setup(self):
        self.resnets = self.make_resnets(list(self.inputs))
        self.attentions = self.make_attentions()
        self.upsamplers = [] if self.last else [Upsample(self.features, self.compute)]

    def __call__(self, x: Picture, skips: list, temb: Any, text: Any, control: Any) -> tuple:
        """`skips` is consumed from its end; what remains on top tells the size to upsample to."""
        taps = {}
        for index, resnet in enumerate(self.resnets):
            x = resnet(jnp.concatenate([x, skips.pop()], axis=-1), temb)
            if self.attentions:
                x, reads = self.attentions[index](x, text, control)
                taps |= reads
        for upsample in self.upsamplers:
            x = upsample(x, skips[-1].shape[1:3])
        return x, taps
