"""Settings that make no sense are refused before anything is loaded, in one line with the name."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any

from ..errors import UserError
from .settings import complete

_ONE_OR_MORE = (
    "steps", "batch", "accumulate", "patience", "cycles", "log_every", "save_every", "keep_last",
    "vectors", "class_steps", "pairs", "examples", "pool", "samples", "keep", "rank", "heads",
    "inner", "look_count", "look_steps",
)  # fmt: skip
_NOT_NEGATIVE = (
    "seed", "warmup", "look_every", "keep_best", "average_after", "progressive", "convolutions",
    "jitter", "margin", "together", "class_pictures", "decay", "clip", "power", "min_snr", "offset",
    "prior", "look_guidance", "alpha", "convolution_alpha", "average_power", "decoder_steps",
    "cache_texts", "spike",
)  # fmt: skip
_SHARES = ("settle", "average", "average_least", "drop", "flip", "curved", "silhouettes",
           "invented", "dropout")  # fmt: skip
_POSITIVE = ("rate", "epsilon", "average_gamma")
_COSINES = ("text", "direction", "image")  # of make_pairs
_CHOICES = {
    "compute": ("float32", "bfloat16"),
    "dtype": ("", "float32", "float16", "bfloat16"),
    "layout": ("diffusers", "kohya"),
    "optimiser": ("adamw", "adam"),
    "averaging": ("diffusers", "litema"),
    "compat": ("", "official"),
    "on_error": ("stop", "warn"),
    "crop": ("middle", "random"),
}
_CONFIGS = {"farm": ("textual_inversion", "dreambooth_lora")}
_LOOKING = ("textual_inversion", "dreambooth", "dreambooth_lora", "inst", "instruct_pix2pix",
            "paint_by_example")  # fmt: skip


def check(config: Any, script: str | Path = "") -> Any:
    """The complete config itself, if every setting can be used.

    Args:
      script: a file of train/; its config in configs/ says which settings it reads.
    Raises: UserError that names the setting.
    """
    for name, value in config.items():
        problem = _problem(name, value, config)
        if problem:
            raise UserError(f"{name}={value!r}: {name} must be {problem}")
    _check_names(config, Path(script))
    return config


def _problem(name: str, value: Any, config: Any) -> str:
    """What the setting must be and is not; "" if all is well."""
    if name in _CHOICES:
        return "" if value in _CHOICES[name] else f"one of {', '.join(map(repr, _CHOICES[name]))}"
    if name == "betas":
        return "" if _are(value, 2, 0, math.nextafter(1, 0)) else "two numbers from 0 to below 1"
    if name == "focus":
        return "" if value == -1 or _is(value, 0, 1) else "from 0 to 1, or -1"
    if "samples" in config and name in ("guidance", "share"):
        most = 1 if name == "share" else math.inf
        good = _are(value, 2, 0, most) and value[0] <= value[1]
        return "" if good else "two numbers, the lower one first"
    if name == "class_pictures" and value == 0 and config.get("prior"):
        return "1 or more, or prior 0"
    return _range_problem(name, value, config)


def _range_problem(name, value, config) -> str:
    if name in _ONE_OR_MORE:
        return "" if _is(value, 1, math.inf) else "1 or more"
    if name in _NOT_NEGATIVE:
        return "" if _is(value, 0, math.inf) else "0 or more"
    if name in _POSITIVE:
        return "" if _is(value, math.ulp(0), math.inf) else "a number above 0"
    if name in _SHARES:
        return "" if _is(value, 0, 1) else "from 0 to 1"
    if "samples" in config and name in _COSINES:
        return "" if _is(value, -1, 1) else "from -1 to 1"
    return ""


def _is(value, least, most) -> bool:
    """Whether it is a finite number in the range."""
    return isinstance(value, int | float) and math.isfinite(value) and least <= value <= most


def _are(values, count, least, most) -> bool:
    return (
        isinstance(values, tuple | list)
        and len(values) == count
        and all(_is(value, least, most) for value in values)
    )


def _check_names(config: Any, script: Path) -> None:
    """Every setting is one that the script reads, and none that it reads is missing."""
    shipped = _shipped(script)
    if not shipped:
        return
    if config.look_every and script.stem not in _LOOKING:
        raise UserError(f"{script.stem} draws no pictures while it runs; look_every must be 0")
    own = set(config)
    known = min((set(complete(each)) for each in shipped), key=lambda names: len(own ^ names))
    for name in sorted(own - known):
        near = difflib.get_close_matches(name, known, 1)
        meant = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}"
        raise UserError(f"{script.stem} knows no setting {name}; {meant}")
    for name in sorted(known - own):
        raise UserError(f"the config does not say {name}, which {script.stem} reads")


def _shipped(script: Path) -> list:
    """The configs in configs/ of a script of train/."""
    from .launch import load_config

    folder, stem = script.resolve().parent.parent / "configs", script.stem
    names = _CONFIGS.get(stem) or (f"train_{stem}", stem)
    found = [folder / f"{name}.py" for name in names if (folder / f"{name}.py").is_file()]
    return [load_config(path) for path in (found if stem in _CONFIGS else found[:1])]
