"""What all processes of a run decide together, and what they hold together."""

import json
from collections.abc import Callable
from typing import Any

from diffedit_jax.errors import UserError

_LENGTH = 2048  # bytes of one process's answer


def is_first() -> bool:
    """Whether this process is the one that writes for all."""
    import jax

    return jax.process_index() == 0


def together(action: Callable[[], Any]) -> list[Any]:
    """Every process runs `action`; all of them get all results (small, JSON), in process order.

    Every process must call it at the same place. An error in one is an error in all, so that none
    waits for another that has left.

    Raises: UserError of the first process that raised one.
    """
    try:
        answer = {"value": action()}
    except UserError as error:
        answer = {"error": str(error)[: _LENGTH // 4], "kind": type(error)}
    kind = answer.pop("kind", UserError)
    for other in (answers := [json.loads(text) for text in _gathered(json.dumps(answer))]):
        if "error" in other:
            raise (kind if other == answer else UserError)(other["error"])
    return [other["value"] for other in answers]


def by_first(action: Callable[[], Any]) -> Any:
    """Process 0 runs `action`; every process gets its result, or raises its error."""
    return together(lambda: action() if is_first() else None)[0]


def on_host(tree: Any) -> Any:
    """The tree with every array whole, as numpy, in the memory of this process.

    Arrays that are spread over processes are gathered, one at a time; every process must call it.
    """
    import jax
    import numpy as np

    return jax.tree.map(lambda leaf: np.asarray(_whole(leaf)), tree)


def _whole(leaf: Any) -> Any:
    from jax.experimental import multihost_utils

    if getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated:
        return leaf
    return multihost_utils.process_allgather(leaf, tiled=True)


def _gathered(text: str) -> list[str]:
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [text]
    mine = np.zeros(_LENGTH, np.uint8)
    code = text.encode()
    if len(code) > _LENGTH:
        raise ValueError(f"an answer of {len(code)} bytes is longer than {_LENGTH}")
    mine[: len(code)] = np.frombuffer(code, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, _LENGTH)
    return [row.tobytes().rstrip(b"\0").decode() for row in rows]
