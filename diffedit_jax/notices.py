"""What a method wants its user to know beside the pictures: one line each."""

from __future__ import annotations

import contextlib
import contextvars
import warnings
from collections.abc import Iterator

_heard: contextvars.ContextVar[list | None] = contextvars.ContextVar("heard", default=None)


def tell(text: str) -> None:
    """Hands one line to whoever listens, or warns where nobody does (a method called by hand)."""
    heard = _heard.get()
    if heard is None:
        warnings.warn(text, stacklevel=3)
    else:
        heard.append(text)


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Collects what is told inside; `edit` puts it into the result's notices."""
    heard: list[str] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)
