"""VAE names: diffusers' of today are canonical; its names of 2022, and LDM's, are renamed.

Source: model.py of CompVis/stable-diffusion (ldm/modules/diffusionmodules) for the LDM tree;
the rename of diffusers' attention in its pull request 3387.
"""

from diffedit_jax.checkpoints.tables.table import Table, Weights

ATTENTION = r"((?:encoder|decoder)\.mid_block\.attentions\.\d+)"
VAE = Table(
    rename=(
        (rf"^{ATTENTION}\.query\.", r"\1.to_q."),
        (rf"^{ATTENTION}\.key\.", r"\1.to_k."),
        (rf"^{ATTENTION}\.value\.", r"\1.to_v."),
        (rf"^{ATTENTION}\.proj_attn\.", r"\1.to_out.0."),
    ),
    reshape=(rf"{ATTENTION}\.(to_q|to_k|to_v|to_out\.0)\.weight",),
)
# Of the diffusers names, the ones from before that rename (for writing folders of that age).
OLD_ATTENTION = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
LDM_ATTENTION = {
    "norm.": "group_norm.",
    "q.": "to_q.",
    "k.": "to_k.",
    "v.": "to_v.",
    "proj_out.": "to_out.0.",
}
LIMIT = 32  # levels, and resnets per level; the published model has 4 and 2
OUTSIDE = {"quant_conv.": "quant_conv.", "post_quant_conv.": "post_quant_conv."}


def vae_shape(weights: Weights) -> tuple[int, int]:
    """(levels, resnets per level of the encoder), read off LDM keys without prefix."""
    places = {tuple(key.split(".")[1:5]) for key in weights if key.startswith("encoder.down.")}
    levels = 1 + max(int(place[1]) for place in places)
    layers = 1 + max(int(place[3]) for place in places if place[2] == "block")
    return min(levels, LIMIT), min(layers, LIMIT)


def canonical_shape(weights: Weights) -> tuple[int, int]:
    """The same, read off canonical keys ("encoder.down_blocks.0.resnets.1.conv1.weight")."""
    places = {tuple(key.split(".")[1:5]) for key in weights if "encoder.down_blocks." in key}
    levels = len({place[1] for place in places})
    layers = len({place[3] for place in places if place[2] == "resnets"})
    return levels, layers


def vae_pairs(levels: int, layers: int) -> dict[str, str]:
    """{LDM prefix: diffusers prefix}; the decoder's levels are numbered the other way round."""
    pairs = dict(OUTSIDE)
    for side in ("encoder", "decoder"):
        _ends(pairs, side)
    for level in range(levels):
        _level(pairs, f"encoder.down.{level}.", f"encoder.down_blocks.{level}.", layers, "down")
        place = f"decoder.up_blocks.{levels - 1 - level}."
        _level(pairs, f"decoder.up.{level}.", place, layers + 1, "up")
    return pairs


def _ends(pairs: dict, side: str) -> None:
    pairs[f"{side}.conv_in."] = f"{side}.conv_in."
    pairs[f"{side}.conv_out."] = f"{side}.conv_out."
    pairs[f"{side}.norm_out."] = f"{side}.conv_norm_out."
    _resnet(pairs, f"{side}.mid.block_1.", f"{side}.mid_block.resnets.0.")
    _resnet(pairs, f"{side}.mid.block_2.", f"{side}.mid_block.resnets.1.")
    for inner, name in LDM_ATTENTION.items():
        pairs[f"{side}.mid.attn_1.{inner}"] = f"{side}.mid_block.attentions.0.{name}"


def _level(pairs: dict, ldm: str, diffusers: str, layers: int, way: str) -> None:
    for j in range(layers):
        _resnet(pairs, f"{ldm}block.{j}.", f"{diffusers}resnets.{j}.")
    pairs[f"{ldm}{way}sample.conv."] = f"{diffusers}{way}samplers.0.conv."


def _resnet(pairs: dict, ldm: str, diffusers: str) -> None:
    for name in ("norm1.", "conv1.", "norm2.", "conv2."):
        pairs[ldm + name] = diffusers + name
    pairs[f"{ldm}nin_shortcut."] = f"{diffusers}conv_shortcut."
