"""Batches from folders: epochs, processes, resume, and files that cannot be read."""

import json
import pathlib

import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.images import read, write
from diffedit_jax.training.data import Share
from diffedit_jax.training.folders import Folder, files_of

FILES = [pathlib.Path(f"{k:03d}.png") for k in range(11)]


def name(path, rng):
    """An example that says which file it is, and what was drawn for it."""
    return {"file": np.int32(path.stem), "drawn": rng.random()}


def broken(path, rng):
    if path.stem in ("003", "007"):
        raise UserError(f"{path} is not a picture")
    return name(path, rng)


def batches(count, **options):
    data = Folder(FILES, options.pop("example", name), batch=4, seed=5, **options)
    return [data.next() for _ in range(count)]


def column(found, key):
    return np.concatenate([batch[key] for batch in found])


def test_every_epoch_has_every_file_once_in_another_order():
    stream = column(batches(11), "file")  # 44 examples: 4 epochs
    epochs = stream.reshape(4, 11)
    assert (np.sort(epochs, axis=1) == np.arange(11)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_processes_load_parts_of_the_same_batch():
    whole = batches(6)
    parts = [batches(6, share=Share((index,), 2)) for index in (0, 1)]
    for k in range(6):
        for key in ("file", "drawn"):
            both = np.concatenate([parts[0][k][key], parts[1][k][key]])
            np.testing.assert_array_equal(both, whole[k][key])


def test_a_stream_goes_on_where_its_state_was_taken():
    data = Folder(FILES, name, batch=4, seed=5)
    for _ in range(4):
        data.next()
    kept = json.loads(json.dumps(data.state()))
    wanted = [data.next() for _ in range(5)]
    again = Folder(FILES, name, batch=4, seed=5)
    again.next()
    again.restore(kept)
    for batch in wanted:
        found = again.next()
        for key in batch:
            np.testing.assert_array_equal(found[key], batch[key])


def test_padding_ends_a_batch_with_its_epoch():
    found = batches(6, pad=True)  # two epochs of 11 in 12 places
    for epoch in (found[:3], found[3:]):
        files, weight = column(epoch, "file"), column(epoch, "weight")
        assert sorted(files[weight == 1]) == list(range(11)) and weight.sum() == 11


def test_a_broken_file_is_named_and_refused():
    with pytest.raises(UserError, match=r"00[37].png is not a picture; .*skip_broken"):
        batches(3, example=broken)


@pytest.mark.filterwarnings("ignore:left out")
def test_a_broken_file_is_left_out_on_request_and_its_place_does_not_count():
    found = batches(11, example=broken, skip_broken=True)
    files, weight = column(found, "file"), column(found, "weight")
    assert not {3, 7} & set(files.tolist())
    assert sorted(files[weight == 1]) == sorted(sorted(set(range(11)) - {3, 7}) * 4)


@pytest.mark.filterwarnings("ignore:left out")
def test_a_folder_without_a_readable_file_is_refused():
    def never(path, rng):
        raise UserError("no")

    with pytest.raises(UserError, match="none of the pictures can be read"):
        batches(1, example=never, skip_broken=True)


def test_pictures_of_a_folder_are_found_and_an_empty_one_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        files_of(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(UserError, match="holds no picture"):
        files_of(tmp_path)
    for k in (2, 1):
        write(tmp_path / f"{k}.png", np.full((4, 4, 3), k, np.uint8))
    files = files_of(tmp_path)
    assert [path.name for path in files] == ["1.png", "2.png"]
    data = Folder(files, lambda path, rng: {"image": read(path).pixels}, batch=2)
    assert sorted(data.next()["image"].max((1, 2, 3))) == [1, 2]
