"""Where the recorded files lie, and the published models as weights that take no memory."""

import gzip
import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "latent"
PIPELINES = GOLDEN / "12_pipelines"


def published(name: str) -> dict:
    """{"config": ..., "keys": {key: shape}} of a published component."""
    return json.loads(gzip.decompress((GOLDEN / "16_key_shapes" / f"{name}.json.gz").read_bytes()))


def hollow(shapes: dict) -> dict:
    """Arrays of the given shapes that share one zero."""
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}


def numbered(shapes: dict) -> dict:
    """Small arrays of the given shapes with contents that all differ."""
    start, found = 0, {}
    for key in sorted(shapes):
        count = int(np.prod(shapes[key]))
        found[key] = np.arange(start, start + count, dtype=np.float32).reshape(shapes[key])
        start += count
    return found


def same(a: dict, b: dict) -> None:
    """Asserts that two sets of weights are equal in names, dtypes and bits."""
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype, key
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)
