"""The command line: `diffedit COMMAND ...`.

Exit codes: 0 done; 1 an error of ours or a machine out of memory; 2 a mistake that the user can
mend, or a run that produced NaN (then nothing was written); 130 interrupted. Errors are one line on
stderr; `--debug` shows where they came from.
"""

from __future__ import annotations

import importlib
import os
import sys

from ..errors import NotFiniteError, UserError
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
    try:
        options = parse(arguments)
        if options.command in ("edit", "generate", "replay", "plan"):
            from .process import prepare_process

            prepare_process(debug)
        module = importlib.import_module(f".{_COMMANDS[options.command]}", __name__)
        return getattr(module, options.command)(options) or 0
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    except BrokenPipeError:  # `diffedit methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        return _failed(*_told(error))


def _told(error: Exception) -> tuple[str, int]:
    """(one line, exit code) of an exception."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError | NotFiniteError):
        return text, 2
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return "out of memory; use a smaller --size, a smaller --batch or --dtype bfloat16", 1
    kind = type(error).__name__
    return f"unexpected {kind}: {text[:200]} (add --debug to see where)", 1


def _failed(message: str, code: int) -> int:
    line = message.encode(errors="backslashreplace").decode()
    print(f"diffedit: {line}", file=sys.stderr)
    return code
