"""What a method wants its user to know beside the pictures: one line each."""

from __future__ import annotations

import contextlib
import contextvars
import warnings
from collections.abc import Iterator
from typing import Any


class Heard(list):
    """Lines that a run told, and the mask that it found, if it looked for one.

    Attributes:
      mask: float [b, h, w] in [0, 1], 1 where the pictures might change.
    """

    mask: Any = None


_heard: contextvars.ContextVar[Heard | None] = contextvars.ContextVar("heard", default=None)


def tell(text: str) -> None:
    """Hands one line to whoever listens, or warns where nobody does (a method called by hand)."""
    heard = _heard.get()
    if heard is None:
        warnings.warn(text, stacklevel=3)
    else:
        heard.append(text)


def show_mask(mask: Any) -> None:
    """Hands the mask that a method found to whoever listens."""
    heard = _heard.get()
    if heard is not None:
        heard.mask = mask


@contextlib.contextmanager
def listening() -> Iterator[Heard]:
    """Collects what is told inside; `edit` puts it into the result's notices."""
    heard = Heard()
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)
