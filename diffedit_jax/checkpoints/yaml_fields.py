"""Reads the few numbers and words that an LDM training yaml tells about a checkpoint.

Only nested `key: value` mappings of plain scalars are understood; lists in brackets are kept as
text, everything else is passed over. Nothing in a yaml can choose code here.
"""

import re
from pathlib import Path

from diffedit_jax.checkpoints.files import refuse_absent
from diffedit_jax.errors import UserError

LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.-]+):(?: +(?P<value>.*?))?\s*$")
LIMIT = 2**20

Scalar = str | int | float | bool | None


def read_yaml_fields(path: Path) -> dict[str, Scalar]:
    """{dotted key: scalar} of a yaml file.

    read_yaml_fields(p)["model.params.linear_start"] == 0.00085

    Raises: UserError for an unreadable, oversized or non-UTF-8 file.
    """
    refuse_absent(path)
    data = path.read_bytes()
    if len(data) > LIMIT:
        raise UserError(f"{path} is too large for a model description ({len(data)} bytes)")
    try:
        return parse_yaml_fields(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None


def parse_yaml_fields(text: str) -> dict[str, Scalar]:
    """{dotted key: scalar} of a yaml text, see `read_yaml_fields`."""
    found: dict[str, Scalar] = {}
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = LINE.match(re.sub(r"(^|\s)#.*$", "", line))
        if not match:
            continue
        indent = len(match["indent"])
        while parents and parents[-1][0] >= indent:
            parents.pop()
        name = ".".join([key for _, key in parents] + [match["key"]])
        if match["value"]:
            found[name] = _scalar(match["value"])
        else:
            parents.append((indent, match["key"]))
    return found


def last(fields: dict[str, Scalar], name: str, default: Scalar = None) -> Scalar:
    """The value whose dotted key ends in `name`; the default when there is none."""
    ends = (value for key, value in fields.items() if key == name or key.endswith(f".{name}"))
    return next(ends, default)


def _scalar(text: str) -> Scalar:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    words = {"true": True, "false": False, "null": None, "~": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
