"""Pieces on disk: written whole, named by what made them, dealt out once each."""

import numpy as np
import pytest

from diffedit_jax.bench import shards
from diffedit_jax.errors import UserError

KEY = {"entrant": "sdedit 0.6", "kind": "object", "seed": 0}


def test_a_piece_comes_back_as_it_was(tmp_path):
    path = shards.file_of(tmp_path, KEY)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    shards.save(path, shards.Piece(pictures, {"seconds": [0.5]}))
    found = shards.load(path)
    assert (found.pictures == pictures).all() and found.facts == {"seconds": [0.5]}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_another_seed_is_another_file_and_a_missing_one_is_none(tmp_path):
    path = shards.file_of(tmp_path, KEY)
    assert path != shards.file_of(tmp_path, {**KEY, "seed": 1})
    assert path == shards.file_of(tmp_path, dict(reversed(KEY.items())))
    assert shards.load(path) is None


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "savez_compressed", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shards.save(shards.file_of(tmp_path, KEY), shards.Piece(np.zeros((0, 8, 8, 3)), {}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half of a file"])
def test_a_damaged_piece_is_named(tmp_path, damage):
    path = shards.file_of(tmp_path, KEY)
    path.write_bytes(damage)
    with pytest.raises(UserError, match="damaged"):
        shards.load(path)


@pytest.mark.parametrize("of", [1, 2, 3])
def test_everything_is_dealt_once_and_evenly(of):
    costs = [5.0, 1, 9, 2, 2, 7, 3]
    parts = [shards.dealt(costs, (k, of)) for k in range(of)]
    assert sorted(sum(parts, [])) == list(range(len(costs)))
    loads = [sum(costs[k] for k in part) for part in parts]
    assert max(loads) - min(loads) <= 3


@pytest.mark.parametrize("text", ["2/2", "1", "-1/2", "a/b", "1/0"])
def test_shards_that_do_not_exist_are_refused(text):
    assert shards.parse_shard("1/2") == (1, 2)
    with pytest.raises(UserError, match="--shard"):
        shards.parse_shard(text)
