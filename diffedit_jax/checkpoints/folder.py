"""The weights of one component folder (unet/, vae/, ...): one file, a variant, or shards.

Source: the layout that diffusers and transformers save (save_pretrained), tabulated in their
documentation; both places of the variant in a shard index's name.
"""

import re
from collections.abc import Callable
from pathlib import Path

from diffedit_jax.checkpoints.files import read_json
from diffedit_jax.checkpoints.read import Weights, read
from diffedit_jax.errors import UserError

STEM = r"(?:diffusion_pytorch_model|pytorch_model|model)"
KIND = r"\.(?P<kind>safetensors|bin)"
NAMES = (
    re.compile(rf"^{STEM}(?:\.(?P<variant>\w+))?{KIND}$"),
    re.compile(rf"^{STEM}{KIND}\.index(?:\.(?P<variant>\w+))?\.json$"),
    re.compile(rf"^{STEM}{KIND}\.(?P<variant>\w+)\.index\.json$"),
)
FALLBACK = "fp16"  # the same weights in fewer bits; every other variant must be asked for

Notice = Callable[[str], None]


def read_component(folder: Path, variant: str | None, notice: Notice) -> Weights:
    """Reads the weights of a component folder.

    Prefers, in this order: the variant asked for (else no variant, else fp16), safetensors over
    .bin, one file over shards. Taking another variant than asked for is said through `notice`.

    Raises: UserError when there is no weight file, or only variants that were not asked for.
    """
    found = weight_files(folder)
    chosen = _variant(found, variant, folder)
    if chosen != variant:
        took, asked = chosen or "plain", variant or "plain"
        notice(f"{folder.name}: there are no {asked} weights, the {took} ones are used")
    path = found[chosen]
    return read_shards(path) if path.suffix == ".json" else read(path)


def weight_files(folder: Path) -> dict[str | None, Path]:
    """{variant: weight file or shard index} of a component folder, the best file of each."""
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: the model needs this component")
    found = rank([path.name for path in folder.iterdir()])
    return {variant: folder / name for variant, name in found.items()}


def rank(names: list[str]) -> dict[str | None, str]:
    """{variant: file name}: of each variant the best, safetensors first, one file before shards."""
    ranked: dict[str | None, list[tuple]] = {}
    for name in names:
        for form, pattern in enumerate(NAMES):
            if match := pattern.match(name):
                order = (match["kind"] != "safetensors", form, name)
                ranked.setdefault(match.groupdict().get("variant"), []).append(order)
    return {variant: min(found)[2] for variant, found in ranked.items()}


def _variant(found: dict, variant: str | None, folder: Path) -> str | None:
    for candidate in (variant, None, *([FALLBACK] if variant is None else [])):
        if candidate in found:
            return candidate
    if found:
        names = ", ".join(sorted(str(name) for name in found))
        raise UserError(f"{folder} has only the variants {names}; ask for one with variant=")
    flax = " (flax .msgpack files are not read)" if any(folder.glob("*.msgpack")) else ""
    raise UserError(f"{folder} has no weight file (.safetensors or .bin){flax}")


def read_shards(index: Path) -> Weights:
    """Reads every shard that an index names, and checks that each holds what the index says.

    Raises: UserError when the index names a file outside its folder, when a shard is missing,
    or when a tensor is absent, unannounced or in two shards.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index} has no weight_map; it is not a shard index")
    names = sorted({_plain(name, index) for name in weight_map.values()})
    absent = [name for name in names if not (index.parent / name).exists()]
    if absent:
        raise UserError(f"{index} names shards that are not there: {', '.join(absent[:8])}")
    weights: Weights = {}
    for name in names:
        shard = read(index.parent / name)
        announced = {key for key, place in weight_map.items() if place == name}
        if wrong := sorted(announced ^ shard.keys()):
            raise UserError(f"{index.parent / name} and {index.name} disagree on {wrong[0]!r}")
        weights.update(shard)
    return weights


def _plain(name, index: Path) -> str:
    """A shard is a file beside its index. Links may lead elsewhere: hub caches are made of them."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.-]*", name):
        raise UserError(f"{index} points outside its folder: {str(name)[:80]!r}; refused")
    return name
