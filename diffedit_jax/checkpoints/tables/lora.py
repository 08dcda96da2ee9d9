"""Names of LoRA weights: a key is a module in some spelling and what the tensor is to it.

kohya writes a module's path with underscores, which cannot be undone by rules (`to_out_0`,
`time_emb_proj`); so the spellings are looked up in a table made of the model's own modules.

Source: kohya-ss/sd-scripts networks/lora.py (prefixes, SDXL's LDM names); diffusers
utils/state_dict_utils.py (UNET_TO_DIFFUSERS, DIFFUSERS_TO_PEFT and older maps); peft
utils/save_and_load.py.
"""

import re
from collections.abc import Mapping
from typing import Any

from diffedit_jax.checkpoints.tables.table import substitute
from diffedit_jax.checkpoints.tables.unet import canonical_shape, unet_pairs

Shapes = Mapping[str, tuple[int, ...]]  # {"unet.conv_in": shape of its weight in torch}

ROLES = (  # (what ends the key, what the tensor is)
    (r"\.lora_(?:down|A)(?:\.default)?\.weight", "down"),
    (r"\.lora_(?:up|B)(?:\.default)?\.weight", "up"),
    (r"\.lora(?:_linear_layer)?\.down\.weight", "down"),
    (r"\.lora(?:_linear_layer)?\.up\.weight", "up"),
    (r"_lora\.down\.weight", "down"),
    (r"_lora\.up\.weight", "up"),
    (r"(?:_lora|\.lora(?:_linear_layer)?)?(?:\.down\.weight)?\.alpha", "alpha"),
)
ROLE = re.compile("(?P<module>.*?)(?:" + "|".join(f"({end})" for end, _ in ROLES) + ")")
# Adapters of other kinds, which no up @ down can stand for.
OTHER_KINDS = (
    (r".*\.(dora_scale|lora_magnitude_vector.*)", "DoRA"),
    (r".*\.(hada_\w+|lokr_\w+|oft_\w+|glora_\w+|a1|b1)(\..*)?", "LyCORIS (LoHa, LoKr, ...)"),
    (r".*\.lora_mid\.weight", "LoCon with a middle factor (lora_mid)"),
    (r".*\.lora_embedding_[AB].*", "LoRA of a token table"),
    (r".*\.(lora_[AB]|lora_up|lora_down)\.bias", "LoRA with biases"),
    (r".*\.(diff|diff_b)", "weight differences"),
)
# The attention processors of 2023 named their own copies of the projections.
PROCESSOR = re.compile(r"\.processor\.to_(q|k|v|out)$")
TEXT_2023 = re.compile(r"\.self_attn\.to_(q|k|v|out)$")
PREFIXES = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}
CLASSIC = "text_model."


def split(key: str) -> tuple[str, str] | None:
    """(module as the file spells it, "down" | "up" | "alpha"), or None for another kind of key."""
    match = ROLE.fullmatch(key)
    if match is None:
        return None
    role = next(i for i, found in enumerate(match.groups()[1:]) if found is not None)
    return _modern(match["module"]), ROLES[role][1]


def other_kind(key: str) -> str | None:
    """What kind of adapter a key belongs to that is not read here."""
    return next((kind for pattern, kind in OTHER_KINDS if re.fullmatch(pattern, key)), None)


def _modern(module: str) -> str:
    module = module.removeprefix("base_model.model.")
    if match := PROCESSOR.search(module):
        end = "to_out.0" if match[1] == "out" else f"to_{match[1]}"
        return f"{module[: match.start()]}.{end}"
    if match := TEXT_2023.search(module):
        return f"{module[: match.start()]}.self_attn.{match[1]}_proj"
    return module


def spellings(shapes: Shapes) -> dict[str, str | None]:
    """{every spelling of a module: the module}; None where two modules share a spelling.

    `shapes` names the modules as "component.path", with the components of a bundle.
    """
    found: dict[str, str | None] = {}
    both = any(module.startswith("text_encoder_2.") for module in shapes)
    for module in shapes:
        for name in _names(module, both):
            found[name] = None if found.get(name, module) != module else module
    for module, name in ldm_names(shapes).items():
        found.setdefault(_flat("lora_unet", name), module)
    return found


def _names(module: str, both: bool) -> set[str]:
    component, path = module.split(".", 1)
    paths = [path, CLASSIC + path] if component != "unet" else [path]
    dotted = {name for p in paths for name in (p, f"{component}.{p}")}
    prefixes = [PREFIXES[component], *(["lora_te1"] if component == "text_encoder" else [])]
    return dotted | {_flat(prefix, p) for prefix in prefixes for p in paths}


def kohya_name(module: str, shapes: Shapes | None, both: bool) -> str:
    """The name that kohya's scripts give a module.

    With two text encoders they are lora_te1 and lora_te2, and the UNet's modules have LDM names.
    """
    component, path = module.split(".", 1)
    if component == "unet":
        return _flat("lora_unet", ldm_names(shapes)[module] if both and shapes else path)
    prefix = "lora_te1" if both and component == "text_encoder" else PREFIXES[component]
    return _flat(prefix, CLASSIC + path)


def _flat(prefix: str, path: str) -> str:
    return f"{prefix}_{path.replace('.', '_')}"


def ldm_names(shapes: Shapes) -> dict[str, str]:
    """{"unet.path": the path in an LDM single file}."""
    keys: dict[str, Any] = {m.removeprefix("unet."): m for m in shapes if m.startswith("unet.")}
    weights = {f"{key}.weight": module for key, module in keys.items()}
    if not weights:
        return {}
    pairs = unet_pairs(canonical_shape(weights))
    renamed, _ = substitute(weights, {new: old for old, new in pairs.items()})
    return {module: name.removesuffix(".weight") for name, module in renamed.items()}
