"""What a program says and returns when it fails: one line, and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ..errors import NotFiniteError, UserError


def guarded(
    action: Callable[[], int | None],
    unexpected: Callable[[Exception], str] | None = None,
    debug: bool = False,
) -> int:
    """The exit code of an action: 0 or its own; 2 for UserError and NaN; 130 when interrupted.

    Args:
      unexpected: says any other exception in one line, for exit code 1; None: it is raised.
      debug: every exception is raised.
    """
    try:
        return action() or 0
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    except BrokenPipeError:  # `diffedit methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        if isinstance(error, UserError | NotFiniteError):
            return _failed(" ".join(str(error).split()), 2)
        if unexpected is None:
            raise
        return _failed(unexpected(error), 1)


def _failed(message: str, code: int) -> int:
    line = message.encode(errors="backslashreplace").decode()
    print(f"diffedit: {line}", file=sys.stderr)
    return code
