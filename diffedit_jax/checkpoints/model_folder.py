"""A diffusers folder: which components it has, their configs and weights.

Class names in model_index.json only pick among the kinds listed here; nothing is imported.
"""

from pathlib import Path

from diffedit_jax.checkpoints.files import read_json
from diffedit_jax.checkpoints.folder import read_component, weight_files
from diffedit_jax.checkpoints.parts import Parts
from diffedit_jax.checkpoints.tables.clip import CLIP_TEXT
from diffedit_jax.checkpoints.tables.exemplar import CLASS, EXEMPLAR
from diffedit_jax.checkpoints.tables.table import Table
from diffedit_jax.checkpoints.tables.vae import VAE
from diffedit_jax.errors import UserError

NETWORKS = {
    "unet": (Table(), ("UNet2DConditionModel", "FlaxUNet2DConditionModel")),
    "vae": (VAE, ("AutoencoderKL", "FlaxAutoencoderKL")),
    "text_encoder": (CLIP_TEXT, ("CLIPTextModel", "FlaxCLIPTextModel")),
    "text_encoder_2": (CLIP_TEXT, ("CLIPTextModelWithProjection",)),
    "image_encoder": (EXEMPLAR, (CLASS,)),
}
OPTIONAL = ("text_encoder_2", "tokenizer_2")
RECOMMENDED = ("steps", "guidance", "image_guidance")
NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
BY_EXAMPLE = ("unet", "vae", "image_encoder", "scheduler")  # what Paint by Example needs


def read_model_folder(folder: str | Path, *, variant: str | None = None) -> Parts:
    """Reads a diffusers folder of Stable Diffusion 1, 2 or XL, whichever form its weights have.

    Components that no editing needs (safety checker, feature extractor) may be there or not.

    Raises: UserError naming every missing component, an unknown class, or a damaged file.

        parts = read_model_folder("./stable-diffusion-v1-5", variant="fp16")
    """
    folder = Path(folder)
    index = read_json(folder / "model_index.json")
    names = _components(folder, index)
    _check_variant(folder, names, variant)
    parts = Parts(where=str(folder), extras=_scalars(index), defaults=read_defaults(folder))
    for name in NETWORKS:
        if name in names:
            found = read_component(folder / name, variant, parts.notices.append)
            parts.weights[name] = NETWORKS[name][0](found, str(folder / name))
            parts.configs[name] = read_json(folder / name / "config.json")
    parts.configs["scheduler"] = read_json(folder / "scheduler" / "scheduler_config.json")
    parts.tokenizers = [folder / name for name in ("tokenizer", "tokenizer_2") if name in names]
    return parts


def read_configs(folder: str | Path) -> Parts:
    """Only the configs and tokenizers of a folder, to go with the weights of a single file."""
    folder = Path(folder)
    parts = Parts(where=str(folder))
    for name in NETWORKS:
        if (folder / name / "config.json").exists():
            parts.configs[name] = read_json(folder / name / "config.json")
    scheduler = folder / "scheduler" / "scheduler_config.json"
    if scheduler.exists():
        parts.configs["scheduler"] = read_json(scheduler)
    tokenizers = [folder / "tokenizer", folder / "tokenizer_2"]
    parts.tokenizers = [place for place in tokenizers if place.is_dir()]
    return parts


def _components(folder: Path, index: dict) -> set[str]:
    """Names of the components to read; all that are missing are reported together."""
    for name, (_, known) in NETWORKS.items():
        kind = _class_name(index.get(name))
        other = name == "image_encoder"  # of another kind of model, which no editing here needs
        if kind is not None and kind not in known and not other:
            raise UserError(f"{folder}: {name} is a {kind!r:.80}; known here: {', '.join(known)}")
    listed = {name for name in OPTIONAL if _class_name(index.get(name)) is not None}
    names = {*NEEDED, *listed}
    if _class_name(index.get("image_encoder")) == CLASS:
        names = set(BY_EXAMPLE)
    missing = sorted(name for name in names if not (folder / name).is_dir())
    if missing:
        raise UserError(f"{folder} lacks {', '.join(f'{name}/' for name in missing)}")
    return names


def _class_name(entry) -> str | None:
    """The class in ["library", "Class"]; None for [null, null] and for absent components."""
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str):
        return entry[1]
    return None


def read_defaults(folder: Path) -> dict:
    """What an optional defaults.json recommends: {"steps": 30, "guidance": 3.0}, numbers only."""
    if not (folder / "defaults.json").exists():
        return {}
    said = read_json(folder / "defaults.json")
    for name, value in said.items():
        if name not in RECOMMENDED or isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(
                f"{folder / 'defaults.json'}: {name} = {value!r:.40} is none of "
                f"{', '.join(RECOMMENDED)}, or no number"
            )
    return said


def _scalars(index: dict) -> dict:
    return {k: v for k, v in index.items() if isinstance(v, bool) and not k.startswith("_")}


def _check_variant(folder: Path, names: set[str], variant: str | None) -> None:
    """A variant that no component has is a typing error, not something to fall back from."""
    if variant is None:
        return
    found = {v for name in names & NETWORKS.keys() for v in weight_files(folder / name)}
    if variant not in found:
        known = ", ".join(sorted(str(v) for v in found if v)) or "none"
        raise UserError(f"{folder} has no variant {variant!r}; its variants: {known}")
