"""AutoencoderKL: pictures to latents and back."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffedit_jax.models import vae_tiles
from diffedit_jax.models.attention import attention
from diffedit_jax.models.config import read_fields, refuse_unknown_values
from diffedit_jax.models.layers import Compute, Conv, GroupNorm, Linear
from diffedit_jax.models.resnet import Downsample, ResnetBlock, Upsample

Picture = Float[Array, "n h w c"]
Result = Float[Array, "n h2 w2 c2"]
ALLOWED = {
    "act_fn": ("silu", "swish"),
    "latents_mean": (None,),
    "latents_std": (None,),
}
EPS = 1e-6


class GridAttention(nn.Module):
    """x + to_out(attention(to_q y, to_k y, to_v y)), y = group_norm(x): one head over all cells."""

    features: int
    groups: int
    compute: Compute = Compute()

    def setup(self):
        self.group_norm = GroupNorm(self.groups, EPS, compute=self.compute)
        self.to_q = Linear(self.features, self.compute)
        self.to_k = Linear(self.features, self.compute)
        self.to_v = Linear(self.features, self.compute)
        self.to_out_0 = Linear(self.features, self.compute)

    def __call__(self, x: Picture) -> Result:
        n, h, w, c = x.shape
        y = self.group_norm(x).reshape(n, h * w, 1, c)
        out, _ = attention(
            self.to_q(y),
            self.to_k(y),
            self.to_v(y),
            scale=c**-0.5,
            operands=self.compute.operand_dtype,
            kernel=self.compute.attention,
        )
        return x + self.to_out_0(out.reshape(n, h, w, c))


class MidBlock(nn.Module):
    """resnet, attention (unless the config leaves it out), resnet."""

    features: int
    groups: int
    attend: bool
    compute: Compute = Compute()

    def setup(self):
        self.resnets = [
            ResnetBlock(self.features, self.features, self.groups, EPS, False, self.compute)
            for _ in range(2)
        ]
        kinds = [GridAttention] if self.attend else []
        self.attentions = [kind(self.features, self.groups, self.compute) for kind in kinds]

    def __call__(self, x: Picture) -> Result:
        x = self.resnets[0](x)
        for block in self.attentions:
            x = block(x)
        return self.resnets[1](x)


class Stage(nn.Module):
    """Some resnets, then (`change`: "down", "up" or None) a change of size by two."""

    in_features: int
    features: int
    layers: int
    groups: int
    change: str | None
    compute: Compute = Compute()
    remat: bool = False

    def setup(self):
        block = nn.remat(ResnetBlock) if self.remat else ResnetBlock
        inputs = [self.in_features] + [self.features] * (self.layers - 1)
        self.resnets = [
            block(width, self.features, self.groups, EPS, False, self.compute) for width in inputs
        ]
        if self.change == "down":
            self.downsamplers = [Downsample(self.features, one_sided=True, compute=self.compute)]
        if self.change == "up":
            self.upsamplers = [Upsample(self.features, self.compute)]

    def __call__(self, x: Picture) -> Result:
        for block in self.resnets:
            x = block(x)
        if self.change == "down":
            return self.downsamplers[0](x)
        return self.upsamplers[0](x) if self.change == "up" else x


class Encoder(nn.Module):
    """Picture to moments: conv, stages that halve the size, mid block, norm, conv."""

    widths: tuple
    layers: int
    groups: int
    out_features: int
    attend: bool
    compute: Compute
    remat: bool

    def setup(self):
        widths, last = self.widths, len(self.widths) - 1
        self.conv_in = Conv(widths[0], compute=self.compute)
        self.down_blocks = [
            Stage(
                widths[max(i - 1, 0)],
                width,
                self.layers,
                self.groups,
                "down" if i < last else None,
                self.compute,
                self.remat,
            )
            for i, width in enumerate(widths)
        ]
        self.mid_block = MidBlock(widths[-1], self.groups, self.attend, self.compute)
        self.conv_norm_out = GroupNorm(self.groups, EPS, True, self.compute)
        self.conv_out = Conv(self.out_features, compute=self.compute)

    def __call__(self, x: Picture) -> Result:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(self.conv_norm_out(self.mid_block(x)))


class Decoder(nn.Module):
    """Latent to picture: conv, mid block, stages that double the size, norm, conv."""

    widths: tuple
    layers: int
    groups: int
    out_features: int
    attend: bool
    compute: Compute
    remat: bool

    def setup(self):
        widths, last = self.widths[::-1], len(self.widths) - 1
        self.conv_in = Conv(widths[0], compute=self.compute)
        self.mid_block = MidBlock(widths[0], self.groups, self.attend, self.compute)
        self.up_blocks = [
            Stage(
                widths[max(i - 1, 0)],
                width,
                self.layers + 1,
                self.groups,
                "up" if i < last else None,
                self.compute,
                self.remat,
            )
            for i, width in enumerate(widths)
        ]
        self.conv_norm_out = GroupNorm(self.groups, EPS, True, self.compute)
        self.conv_out = Conv(self.out_features, compute=self.compute)

    def __call__(self, z: Picture) -> Result:
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(self.conv_norm_out(x))


class AutoencoderKL(nn.Module):
    """The autoencoder of latent diffusion, factor 2^(levels - 1) smaller in height and width.

    Fields carry the names and defaults of the diffusers config. Latents here are unscaled: the
    diffusion model sees scaling_factor * z.

    Example:
      mean, logvar = vae.apply({"params": params}, picture, method="encode")
      picture = vae.apply({"params": params}, mean, method="decode")

    Source: Rombach et al. 2022; diffusers models/autoencoders/autoencoder_kl.py, vae.py.
    """

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True
    dtype: Any = jnp.float32
    operands: Any = None
    attention: str = "auto"
    remat: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "AutoencoderKL":
        """The network of a diffusers `vae/config.json`; `options` set dtype, operands, remat.

        Raises UserError for a value that this network cannot honour; unknown keys are ignored.
        """
        levels = len(config.get("block_out_channels", (64,)))
        kinds = {
            "down_block_types": (("DownEncoderBlock2D",) * levels,),
            "up_block_types": (("UpDecoderBlock2D",) * levels,),
        }
        refuse_unknown_values("vae", config, ALLOWED | kinds)
        return cls(**(read_fields(cls, config) | options))

    @property
    def factor(self) -> int:
        """How many picture pixels one latent cell spans in each direction."""
        return 2 ** (len(self.block_out_channels) - 1)

    def setup(self):
        compute = Compute(self.dtype, self.operands, self.attention)
        common = {
            "widths": self.block_out_channels,
            "layers": self.layers_per_block,
            "groups": self.norm_num_groups,
            "attend": self.mid_block_add_attention,
            "compute": compute,
            "remat": self.remat,
        }
        moments = 2 * self.latent_channels
        self.encoder = Encoder(out_features=moments, **common)
        self.decoder = Decoder(out_features=self.out_channels, **common)
        if self.use_quant_conv:
            self.quant_conv = Conv(moments, size=1, padding=0, compute=compute)
        if self.use_post_quant_conv:
            self.post_quant_conv = Conv(self.latent_channels, size=1, padding=0, compute=compute)

    def encode(self, x: Float[Array, "n h w 3"]) -> tuple[Result, Result]:
        """Mean and log variance (clamped to [-30, 20]) of the latent; x in [-1, 1]."""
        moments = self.encoder(x)
        moments = self.quant_conv(moments) if self.use_quant_conv else moments
        mean, logvar = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, z: Picture) -> Result:
        """The picture, about [-1, 1] and not clipped, of an unscaled latent; float32."""
        z = self.post_quant_conv(z) if self.use_post_quant_conv else z
        return self.decoder(z).astype(jnp.float32)

    def tiled_encode(
        self, x: Float[Array, "n h w 3"], tile: int = 512, overlap: int = 128
    ) -> tuple[Result, Result]:
        """`encode` of overlapping tiles (pixels), blended: memory of one tile at a time."""
        module, variables = self.unbind()

        def encode(part):
            return jnp.concatenate(module.apply(variables, part, method="encode"), axis=-1)

        moments = vae_tiles.blend_tiles(encode, x, tile, overlap, 1, self.factor)
        return tuple(jnp.split(moments, 2, axis=-1))

    def tiled_decode(self, z: Picture, tile: int = 64, overlap: int = 16) -> Result:
        """`decode` of overlapping tiles (latent cells), blended: memory of one tile at a time."""
        module, variables = self.unbind()

        def decode(part):
            return module.apply(variables, part, method="decode")

        return vae_tiles.blend_tiles(decode, z, tile, overlap, self.factor, 1)

    def __call__(self, x: Float[Array, "n h w 3"]) -> Result:
        """decode(mean of encode(x)): touches every parameter, so `init` can use it."""
        return self.decode(self.encode(x)[0])
