"""The command line: `diffedit COMMAND ...`.

Exit codes: 0 done; 1 an error of ours or a machine out of memory; 2 a mistake that the user can
mend, or a run that produced NaN (then nothing was written); 130 interrupted. Errors are one line on
stderr; `--debug` shows where they came from.
"""

from __future__ import annotations

import importlib
import sys

from .guard import guarded
from .options import parse

_COMMANDS = dict(
    edit="run", generate="run", replay="replay", plan="plan", methods="describe",
    convert="tools", bench="tools", train="tools",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; never raises for what a user can do wrong.

    Args:
      arguments: the words after `diffedit`; those of the process if not given.
    Example: `main(["generate", "a cat on a blue background", "--out", "cat.png"])`.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in arguments

    def run() -> int | None:
        options = parse(arguments)
        if options.command in ("edit", "generate", "replay", "plan"):
            from .process import prepare_process

            prepare_process(debug)
        module = importlib.import_module(f".{_COMMANDS[options.command]}", __name__)
        return getattr(module, options.command)(options)

    return guarded(run, _unexpected, debug)


def _unexpected(error: Exception) -> str:
    """One line of what neither the user nor a run did wrong."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return "out of memory; use a smaller --size, a smaller --batch or --dtype bfloat16"
    return f"unexpected {type(error).__name__}: {text[:200]} (add --debug to see where)"
