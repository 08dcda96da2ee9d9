"""UNet names: diffusers' are canonical; LDM's (single files) are numbered straight through.

Source: openaimodel.py of CompVis/stable-diffusion for the LDM numbering: input block 0 is
conv_in, then each level has its resnets and, but for the last, a downsampler; output blocks
mirror it with one resnet more.
"""

from dataclasses import dataclass

from diffedit_jax.checkpoints.tables.table import Weights
from diffedit_jax.errors import UserError

BLOCK_LIMIT = 100  # input blocks; the largest published model has 12
RESNET = {
    "in_layers.0.": "norm1.",
    "in_layers.2.": "conv1.",
    "emb_layers.1.": "time_emb_proj.",
    "out_layers.0.": "norm2.",
    "out_layers.3.": "conv2.",
    "skip_connection.": "conv_shortcut.",
}
OUTSIDE = {
    "time_embed.0.": "time_embedding.linear_1.",
    "time_embed.2.": "time_embedding.linear_2.",
    "label_emb.0.0.": "add_embedding.linear_1.",
    "label_emb.0.2.": "add_embedding.linear_2.",
    "input_blocks.0.0.": "conv_in.",
    "out.0.": "conv_norm_out.",
    "out.2.": "conv_out.",
}


@dataclass(frozen=True)
class UNetShape:
    """What the numbering of an LDM UNet depends on.

    Attributes:
      layers: resnets per level on the way down (one more on the way up).
      depths: transformer blocks per attention at each level, 0 where a level has no attention.
    """

    layers: int
    depths: tuple[int, ...]


def unet_shape(weights: Weights) -> UNetShape:
    """Reads the numbering off the LDM keys ("input_blocks.3.0.op.weight", no prefix)."""
    numbers = [int(key.split(".")[1]) for key in weights if key.startswith("input_blocks.")]
    blocks = min(1 + max(numbers, default=0), BLOCK_LIMIT)
    downs = [n for n in range(blocks) if f"input_blocks.{n}.0.op.weight" in weights]
    layers = downs[0] - 1 if downs else blocks - 1
    levels = blocks // (layers + 1)
    firsts = [1 + level * (layers + 1) for level in range(levels)]
    places = [f"input_blocks.{block}.1.transformer_blocks." for block in firsts]
    return UNetShape(layers, tuple(_count(weights, place) for place in places))


def canonical_shape(weights: Weights) -> UNetShape:
    """The same, read off canonical keys ("down_blocks.0.resnets.1.conv1.weight").

    Raises: UserError when levels differ in their number of resnets, which LDM cannot say.
    """
    levels = _count(weights, "down_blocks.")
    layers = [_count(weights, f"down_blocks.{level}.resnets.") for level in range(levels)]
    if len(set(layers)) != 1:
        raise UserError(f"a UNet with {layers} resnets at its levels has no LDM form")
    places = [f"down_blocks.{level}.attentions.0.transformer_blocks." for level in range(levels)]
    return UNetShape(layers[0], tuple(_count(weights, place) for place in places))


def _count(weights: Weights, prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in weights if key.startswith(prefix)})


def unet_pairs(shape: UNetShape) -> dict[str, str]:
    """{LDM prefix: diffusers prefix} for a UNet of this shape; one-to-one, so it inverts."""
    pairs = dict(OUTSIDE)
    levels = len(shape.depths)
    for level in range(levels):
        _down_level(pairs, shape, level)
        _up_level(pairs, shape, level, last=level == levels - 1)
    _resnet(pairs, "middle_block.0.", "mid_block.resnets.0.")
    pairs["middle_block.1."] = "mid_block.attentions.0."
    _resnet(pairs, "middle_block.2.", "mid_block.resnets.1.")
    return pairs


def _down_level(pairs: dict, shape: UNetShape, level: int) -> None:
    first = 1 + level * (shape.layers + 1)
    for j in range(shape.layers):
        _resnet(pairs, f"input_blocks.{first + j}.0.", f"down_blocks.{level}.resnets.{j}.")
        if shape.depths[level]:
            pairs[f"input_blocks.{first + j}.1."] = f"down_blocks.{level}.attentions.{j}."
    if level < len(shape.depths) - 1:
        down = f"down_blocks.{level}.downsamplers.0.conv."
        pairs[f"input_blocks.{first + shape.layers}.0.op."] = down


def _up_level(pairs: dict, shape: UNetShape, level: int, last: bool) -> None:
    first = level * (shape.layers + 1)
    attends = shape.depths[-1 - level] > 0
    for j in range(shape.layers + 1):
        _resnet(pairs, f"output_blocks.{first + j}.0.", f"up_blocks.{level}.resnets.{j}.")
        if attends:
            pairs[f"output_blocks.{first + j}.1."] = f"up_blocks.{level}.attentions.{j}."
    if not last:
        place = f"output_blocks.{first + shape.layers}.{2 if attends else 1}.conv."
        pairs[place] = f"up_blocks.{level}.upsamplers.0.conv."


def _resnet(pairs: dict, ldm: str, diffusers: str) -> None:
    for inner, name in RESNET.items():
        pairs[ldm + inner] = diffusers + name
