"""Reading a diffusers or transformers config: full defaults, and no value quietly ignored."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from diffedit_jax.errors import UserError


def read_fields(module: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `config` that are fields of the dataclass `module`; lists become tuples.

    Keys that are absent or null keep the module's default; keys that no module knows are ignored;
    whole numbers become float where the default is one.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(module) if field.init}
    known = set(config) & set(defaults) - {"parent", "name"}
    chosen = {key: freeze(config[key]) for key in sorted(known) if config[key] is not None}
    whole = {key for key in chosen if isinstance(defaults[key], float)}
    return {key: float(value) if key in whole else value for key, value in chosen.items()}


def freeze(value: Any) -> Any:
    """Lists as tuples, at every depth, so that a module stays hashable."""
    return tuple(freeze(item) for item in value) if isinstance(value, list | tuple) else value


def refuse_unknown_values(
    kind: str, config: Mapping[str, Any], allowed: Mapping[str, tuple]
) -> None:
    """Raises UserError for the first key whose value is not among those that can be honoured."""
    for key, values in allowed.items():
        if key in config and freeze(config[key]) not in values:
            known = " or ".join(repr(value) for value in values)
            raise UserError(f"{kind} config: {key} = {config[key]!r} is not supported, use {known}")


def per_level(kind: str, name: str, value: Any, levels: int) -> tuple:
    """`value` for each level: a single value repeated, or a list of the right length."""
    if not isinstance(value, list | tuple):
        return (value,) * levels
    if len(value) != levels:
        raise UserError(f"{kind} config: {name} has {len(value)} entries for {levels} levels")
    return tuple(value)
