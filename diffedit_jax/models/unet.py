"""UNet2DCondition: the denoiser of Stable Diffusion 1.x, 2.x, inpainting, pix2pix and SDXL."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffedit_jax.errors import UserError
from diffedit_jax.models.config import per_level, read_fields, refuse_unknown_values
from diffedit_jax.models.layers import Compute, Conv, EmbeddingMLP, GroupNorm, timestep_embedding
from diffedit_jax.models.unet_blocks import DownLevel, MidLevel, UpLevel

DOWN_TYPES = ("DownBlock2D", "CrossAttnDownBlock2D")
UP_TYPES = ("UpBlock2D", "CrossAttnUpBlock2D")
ALLOWED = {
    "center_input_sample": (False,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "only_cross_attention": (False,),
    "mid_block_only_cross_attention": (False, None),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "resnet_out_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "addition_embed_type": (None, "text_time"),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "cross_attention_norm": (None,),
    "reverse_transformer_layers_per_block": (None,),
}


class UNet(nn.Module):
    """eps, x0 or v of a noised latent, given time and text: (x, t, context) -> (out, features).

    Fields carry the names and defaults of the diffusers config; `attention_head_dim` is, as there,
    the NUMBER of heads. float32 parameters; `dtype` is what activations are stored as, `operands`
    what products read (None: dtype), sums are float32; so `upcast_attention` holds always.
    `remat` recomputes every resnet and transformer in the backward pass.

    Example:
      unet = UNet.from_config(json.load(open("unet/config.json")), dtype=jnp.bfloat16)
      out, more = unet.apply({"params": params}, x, t, context)

    Source: Rombach et al. 2022; diffusers models/unets/unet_2d_condition.py.
    """

    sample_size: Any = None
    in_channels: int = 4
    out_channels: int = 4
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0
    down_block_types: tuple = (DOWN_TYPES[1],) * 3 + (DOWN_TYPES[0],)
    up_block_types: tuple = (UP_TYPES[0],) + (UP_TYPES[1],) * 3
    block_out_channels: tuple = (320, 640, 1280, 1280)
    layers_per_block: Any = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: Any = 1280
    transformer_layers_per_block: Any = 1
    attention_head_dim: Any = 8
    use_linear_projection: bool = False
    upcast_attention: bool = False
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None
    dtype: Any = jnp.float32
    operands: Any = None
    attention: str = "auto"
    remat: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "UNet":
        """The network of a diffusers `unet/config.json`; `options` set dtype, operands, remat.

        Raises UserError for a value that this network cannot honour; unknown keys are ignored.
        """
        refuse_unknown_values("unet", config, ALLOWED)
        unet = cls(**(read_fields(cls, config) | options))
        levels = len(unet.block_out_channels)
        for name, known in (("down_block_types", DOWN_TYPES), ("up_block_types", UP_TYPES)):
            kinds = per_level("unet", name, getattr(unet, name), levels)
            wrong = [kind for kind in kinds if kind not in known]
            if wrong:
                raise UserError(f"unet config: {name} has {wrong[0]!r}, known are {known}")
        for name in ("layers_per_block", "transformer_layers_per_block", "attention_head_dim"):
            per_level("unet", name, getattr(unet, name), levels)
        return unet

    @property
    def context_width(self) -> int:
        """Channels of the text context."""
        width = self.cross_attention_dim
        return width[0] if isinstance(width, tuple) else width

    def setup(self):
        compute = Compute(self.dtype, self.operands, self.attention)
        widths = self.block_out_channels
        self.conv_in = Conv(widths[0], compute=compute)
        self.time_embedding = EmbeddingMLP(4 * widths[0], compute)
        if self.addition_embed_type == "text_time":
            self.add_embedding = EmbeddingMLP(4 * widths[0], compute)
        plan = _plan(self)
        common = {
            "linear": self.use_linear_projection,
            "groups": self.norm_num_groups,
            "eps": self.norm_eps,
            "compute": compute,
            "remat": self.remat,
        }
        self.down_blocks = [DownLevel(**level, **common) for level in plan["down"]]
        self.mid_block = MidLevel(**plan["mid"], **common)
        self.up_blocks = [UpLevel(**level, **common) for level in plan["up"]]
        self.conv_norm_out = GroupNorm(self.norm_num_groups, self.norm_eps, True, compute)
        self.conv_out = Conv(self.out_channels, compute=compute)

    def keys_values(self, context: Float[Array, "n tokens d"]) -> dict[str, Any]:
        """{site name: (k, v)} of a context, each [n, tokens, heads, head_dim]: pass as `kv=`."""
        pairs = {}
        for level in (*self.down_blocks, self.mid_block, *self.up_blocks):
            pairs |= level.keys_values(context)
        return pairs

    def __call__(
        self,
        x: Float[Array, "n h w c_in"],
        t: Any,
        context: Float[Array, "n tokens d"] | None = None,
        *,
        control: Any = None,
        added: dict | None = None,
        kv: dict | None = None,
        context_mask: Any = None,
    ) -> tuple[Float[Array, "n h w c_out"], dict[str, Any]]:
        """One evaluation.

        t: scalar or [n], may be fractional. `kv` (from `keys_values`) stands in for `context`.
        added (SDXL): {"text_embeds": [n, 1280], "time_ids": [n, 6]}. context_mask: [n, tokens],
        nonzero where visible. Returns out in float32 and {"taps": {site name: what `control` read},
        "features": {"down_0": ..., "mid": ..., "up_0": ...}}.
        """
        if context is None and kv is None:
            raise UserError("the UNet needs a text context, or keys and values (kv)")
        temb = self._time(x.shape[0], t, added)
        bias = None if context_mask is None else (1.0 - context_mask[:, None, None]) * -10000.0
        text = {"context": None if kv is not None else context, "kv": kv, "bias": bias}
        x = self.conv_in(x)
        skips, taps, features = [x], {}, {}
        for index, block in enumerate(self.down_blocks):
            x, pushed, reads = block(x, temb, text, control)
            skips, taps = skips + pushed, taps | reads
            features[f"down_{index}"] = x
        x, reads = self.mid_block(x, temb, text, control)
        features["mid"], taps = x, taps | reads
        for index, block in enumerate(self.up_blocks):
            x, reads = block(x, skips, temb, text, control)
            features[f"up_{index}"], taps = x, taps | reads
        out = self.conv_out(self.conv_norm_out(x)).astype(jnp.float32)
        return out, {"taps": taps, "features": features}

    def _time(self, n: int, t: Any, added: dict | None) -> Float[Array, "n d"]:
        t = jnp.broadcast_to(jnp.asarray(t, jnp.float32), (n,))
        width, flip = self.block_out_channels[0], self.flip_sin_to_cos
        temb = self.time_embedding(timestep_embedding(t, width, flip, self.freq_shift))
        if self.addition_embed_type is None:
            return temb
        if added is None or not {"text_embeds", "time_ids"} <= set(added):
            raise UserError("this UNet needs added = {'text_embeds', 'time_ids'} (SDXL)")
        ids = jnp.asarray(added["time_ids"], jnp.float32)
        rows = timestep_embedding(ids.reshape(-1), self.addition_time_embed_dim, flip)
        rows = jnp.concatenate([added["text_embeds"], rows.reshape(n, -1)], axis=-1)
        return temb + self.add_embedding(rows)


def _plan(unet: UNet) -> dict[str, Any]:
    """Sizes, names and attention numbering of every level, from the config's fields."""
    widths = unet.block_out_channels
    levels = len(widths)
    layers = per_level("unet", "layers_per_block", unet.layers_per_block, levels)
    heads = per_level("unet", "attention_head_dim", unet.attention_head_dim, levels)
    depth = per_level(
        "unet", "transformer_layers_per_block", unet.transformer_layers_per_block, levels
    )
    down, order, skips = [], 0, [widths[0]]
    for i in range(levels):
        depths = (depth[i] if unet.down_block_types[i] == DOWN_TYPES[1] else 0,) * layers[i]
        level = {"title": f"down_blocks_{i}", "place": "down", "order": order, "depths": depths}
        level |= {"features": widths[i], "heads": heads[i], "last": i == levels - 1}
        down.append(level | {"in_features": widths[max(i - 1, 0)]})
        skips += [widths[i]] * (layers[i] + (i < levels - 1))
        order += 2 * sum(depths)
    mid = {"title": "mid_block", "place": "mid", "order": order, "depths": (depth[-1],)}
    mid |= {"features": widths[-1], "heads": heads[-1]}
    order += 2 * depth[-1]
    up, width = [], widths[-1]
    for i in range(levels):
        j = levels - 1 - i
        depths = (depth[j] if unet.up_block_types[i] == UP_TYPES[1] else 0,) * (layers[j] + 1)
        inputs = []
        for _ in depths:
            inputs.append(width + skips.pop())
            width = widths[j]
        level = {"title": f"up_blocks_{i}", "place": "up", "order": order, "depths": depths}
        level |= {"features": width, "heads": heads[j], "last": i == levels - 1}
        up.append(level | {"inputs": tuple(inputs)})
        order += 2 * sum(depths)
    return {"down": down, "mid": mid, "up": up}
