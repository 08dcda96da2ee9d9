"""PIE-Bench's format and metrics on a folder of three made-up pictures."""

import json
import types

import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax import images
from diffedit_jax.bench import quality_of_pie as pie
from diffedit_jax.bench.pie_arguments import arguments, lacks_a_word
from diffedit_jax.bench.pie_bench import SIDE, decode_mask, encode_mask, read_tasks, result_of
from diffedit_jax.bench.pie_scores import COLUMNS, Scores
from diffedit_jax.bench.pie_weights import scores
from diffedit_jax.errors import UserError
from diffedit_jax.methods import find
from diffedit_jax.metrics import perceptual
from diffedit_jax.models import SqueezeNet
from tests.golden_models import GOLDEN

WHOLE = [0, SIDE * SIDE]
MIDDLE = np.zeros((SIDE, SIDE), bool)
MIDDLE[100:300, 200:260] = True


def entry(path, kind, mask, words="cat dog"):
    return {
        "image_path": path,
        "original_prompt": "a [cat] on a blue background",
        "editing_prompt": "a [dog] on a blue background",
        "editing_instruction": "turn the cat into a dog",
        "editing_type_id": kind,
        "blended_word": words,
        "mask": mask,
    }


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    entries = {
        "000": entry("0_random/a.png", "0", encode_mask(MIDDLE)),
        "111": entry("1_change_object/b.png", "1", encode_mask(MIDDLE)),
        "922": entry("9_style/c.png", "9", WHOLE, words=""),
    }
    for each in entries.values():
        path = tmp_path / "annotation_images" / each["image_path"]
        path.parent.mkdir(parents=True)
        images.write(path, rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    (tmp_path / "mapping_file.json").write_text(json.dumps(entries))
    return tmp_path


def test_masks_are_runs_over_the_rows_and_the_frame_is_always_edited():
    mask = decode_mask([0, 2, 9, 3, 14, 100], side=4)
    wanted = np.ones((4, 4), bool)
    wanted[1, 1:3] = wanted[2, 1:3] = [False, False]
    wanted[2, 1:3] = True  # 9, 10, 11
    assert (mask == wanted).all()
    framed = MIDDLE.copy()
    framed[[0, -1]] = framed[:, [0, -1]] = True
    assert (decode_mask(encode_mask(MIDDLE)) == framed).all()
    with pytest.raises(UserError, match="pairs"):
        decode_mask([1, 2, 3])


def test_the_mapping_file_is_read(folder):
    tasks = read_tasks(folder)
    assert [task.key for task in tasks] == ["000", "111", "922"]
    assert tasks[0].prompt == "a dog on a blue background" and tasks[0].words == "cat dog"
    assert tasks[2].edited.all() and not tasks[0].edited.all()
    assert [task.key for task in read_tasks(folder, ["9"])] == ["922"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "map names"),
        ('{"a": {"image_path": "b.png"}}', "lacks"),
        (json.dumps({"a": entry("../../etc/passwd", "0", [])}), "outside"),
    ],
)
def test_a_broken_mapping_file_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "mapping_file.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_tasks(tmp_path)
    with pytest.raises(UserError, match="no PIE-Bench folder"):
        read_tasks(tmp_path / "nowhere")


def test_the_edit_is_the_right_most_square_of_a_strip():
    strip = np.concatenate([np.full((4, 4, 3), k, np.uint8) for k in range(4)], axis=1)
    assert (result_of(strip) == 3).all() and (result_of(strip[:, :4]) == 0).all()
    with pytest.raises(UserError, match="square"):
        result_of(strip[:, :3])


def test_background_metrics_are_means_over_the_whole_picture(folder):
    """An error d on every pixel that must stay gives MSE d^2 (1 - share of the mask)."""
    task = read_tasks(folder)[0]
    source = np.full((SIDE, SIDE, 3), 100, np.uint8)
    found = Scores()(task, source, source + np.uint8(51))
    mse = 0.2**2 * (1 - task.edited.mean())
    assert found["mse_unedit_part"] == pytest.approx(mse, rel=1e-5)
    assert found["psnr_unedit_part"] == pytest.approx(-10 * np.log10(mse), rel=1e-5)
    inside = np.where(task.edited[..., None], np.uint8(0), source)
    assert Scores()(task, source, inside)["mse_unedit_part"] == 0


def test_where_all_may_change_there_is_no_background(folder):
    task = read_tasks(folder, ["9"])[0]
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    assert all(np.isnan(value) for value in Scores()(task, black, black).values())


def test_every_metric_sees_the_part_it_is_defined_on(folder):
    task, seen = read_tasks(folder)[0], {}
    source = np.full((SIDE, SIDE, 3), 100, np.uint8)
    result = source + np.uint8(100)

    def clip(picture, text):
        seen[(text, int(picture[0, 5, 0]), int(picture[5, 5, 0]))] = True
        return 25.0

    def lpips(a, b):
        assert a[150, 220].max() == b[150, 220].max() == 0 and a.max() <= 1
        return 0.5

    def structure(a, b):
        assert (a == source).all() and (b == result).all()
        return 0.01

    found = Scores(lpips=lpips, clip=clip, structure=structure)(task, source, result)
    assert tuple(found) == COLUMNS
    # The whole source and result; of the edited part the frame is there and the inside is black.
    assert set(seen) == {(task.source, 100, 100), (task.prompt, 200, 200), (task.prompt, 200, 0)}


def made(sources, tasks):
    return [np.full_like(s, 7) if t.kind != "1" else "no such word" for s, t in
            zip(sources, tasks, strict=True)]  # fmt: skip


def run(folder, out, make=made, shard=(0, 1)):
    tasks = read_tasks(folder)
    name = "scores.csv" if shard == (0, 1) else f"scores.{shard[0]}of{shard[1]}.csv"
    rows = pie.Rows(out / name, Scores().columns)
    pie.score_all(folder, tasks[shard[0] :: shard[1]], make, Scores(), rows, 2, lambda text: None)
    return pie.means(out, tasks, {"clip": "no weights"})


def test_a_run_that_was_killed_goes_on_and_gives_the_same_means(folder, tmp_path_factory):
    whole, cut = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cut")
    wanted = run(folder, whole)
    assert wanted["done"] == 3 and wanted["refused"] == {"111": "no such word"}
    lines = (whole / "scores.csv").read_text().splitlines(keepends=True)
    (cut / "scores.csv").write_text("".join(lines[:2]) + lines[2][:9])  # killed within a line
    asked = []

    def counting(sources, tasks):
        asked.extend(task.key for task in tasks)
        return made(sources, tasks)

    assert run(folder, cut, counting) == wanted and asked == ["111", "922"]
    assert run(folder, cut, counting) == wanted and asked == ["111", "922"]


def test_pictures_refused_for_their_words_are_counted(folder, tmp_path_factory):
    """One of the two refused ones has the word "tiger", which its prompt lacks."""
    place = folder / "mapping_file.json"
    entries = json.loads(place.read_text())
    entries["111"]["blended_word"] = "cat tiger"
    place.write_text(json.dumps(entries))
    out = tmp_path_factory.mktemp("out")

    def make(sources, tasks):
        return ["no" if task.key != "000" else source for source, task in
                zip(sources, tasks, strict=True)]  # fmt: skip

    found = run(folder, out, make)
    assert found["lacks_a_word"] == ["111"] and set(found["refused"]) == {"111", "922"}
    assert "3 of 3 pictures, 2 refused and left out, 1 of these" in pie.table(found)


def test_shards_together_are_the_whole(folder, tmp_path_factory):
    whole, parts = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("parts")
    wanted = run(folder, whole)
    assert run(folder, parts, shard=(0, 2))["done"] == 2
    assert run(folder, parts, shard=(1, 2)) == wanted
    assert wanted["all"]["psnr_unedit_part"]["n"] == 1  # one refused, one without background


def test_a_table_of_other_columns_is_not_mixed_with_ours(tmp_path):
    pie.Rows(tmp_path / "scores.csv", ["a", "b"])
    with pytest.raises(UserError, match="other columns"):
        pie.Rows(tmp_path / "scores.csv", ["a", "c"])


def test_results_of_others_are_scored(folder, tmp_path_factory):
    out, theirs = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("theirs")
    for task in read_tasks(folder)[:2]:
        place = theirs / task.path
        place.parent.mkdir(parents=True)
        source = images.read(folder / "annotation_images" / task.path).pixels
        images.write(place, np.concatenate([source * 0, source], axis=1))  # a strip
    found = run(folder, out, pie.taken(theirs))
    assert found["all"]["mse_unedit_part"]["value"] == 0
    assert "does not exist" in found["refused"]["922"]


def test_the_weights_that_are_here_decide_the_columns():
    judge, absent = scores(clip="emoji")
    assert set(absent) == {"structure_distance", "lpips_unedit_part"}
    assert set(judge.columns) | set(absent) == set(COLUMNS)
    assert Scores(lpips=lambda a, b: 0.1, lpips_net="alex").columns[1] == "lpips_alex_unedit_part"


FIRES = ((1, 4), (1, 4), (2, 8), (2, 8), (3, 12), (3, 12), (4, 16), (4, 16))  # a sixteenth


def squeeze_files(torch, folder):
    """Random weights under torchvision's and lpips' names, of a narrow SqueezeNet 1.1."""
    shapes, before = {"features.0": (4, 3, 3, 3), "classifier.1": (10, 32, 1, 1)}, 4
    for index, (few, many) in zip((3, 4, 6, 7, 9, 10, 11, 12), FIRES, strict=True):
        here = f"features.{index}"
        shapes[f"{here}.squeeze"] = (few, before, 1, 1)
        shapes[f"{here}.expand1x1"] = (many, few, 1, 1)
        shapes[f"{here}.expand3x3"] = (many, few, 3, 3)
        before = 2 * many
    trunk = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    trunk |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    wide = (4, 8, 16, 24, 24, 32, 32)
    heads = {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate(wide)}
    torch.save(trunk, folder / "trunk.pth")
    torch.save(heads, folder / "heads.pth")
    return {"trunk": str(folder / "trunk.pth"), "heads": str(folder / "heads.pth")}


def test_squeezenet_fills_the_benchmark_s_own_column(folder, tmp_path, monkeypatch):
    """And it sees nothing of what lies inside the mask."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    monkeypatch.setitem(perceptual.TRUNKS, "squeeze", SqueezeNet(4, FIRES))
    judge, absent = scores(lpips="squeeze", **squeeze_files(torch, tmp_path))
    assert judge.columns[1] == "lpips_unedit_part" not in absent
    task = read_tasks(folder)[0]
    source = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    inside = np.where(task.edited[..., None], np.uint8(0), source)
    assert judge(task, source, inside)["lpips_unedit_part"] == 0
    assert judge(task, source, 255 - source)["lpips_unedit_part"] > 0
    with pytest.raises(UserError, match="--lpips"):
        scores(trunk="trunk.pth")
    with pytest.raises(UserError, match="squeezenet1_1"):
        scores(lpips="squeeze")


def test_the_embedded_clip_prefers_the_prompt_of_the_picture(folder):
    from diffedit_jax.scenes import parse, render

    task = read_tasks(folder)[0]
    source, result = (
        render(parse(text)).repeat(8, 0).repeat(8, 1) for text in (task.source, task.prompt)
    )
    judge, _ = scores(clip="emoji")
    right, wrong = judge(task, source, result), judge(task, result, source)
    for column in COLUMNS[-3:-1]:
        assert right[column] > wrong[column]


def test_methods_are_told_the_benchmark_s_words_and_its_seed(folder):
    tasks = read_tasks(folder)
    told = arguments("pnp_inversion", tasks)
    own = {"source": "cat", "prompt": "dog"}
    assert told["blend_words"] == [own, own, ""] and told["seed"] == [1234] * 3
    assert set(arguments("sdedit", tasks)) == {"prompt", "seed"}
    assert arguments("inpaint", tasks)["mask"][2].all()
    assert arguments("edict", tasks[2:]).keys() == {"prompt", "source", "seed"}


PROTOCOL = {  # run_editing_p2p.py and attention_control.py of the benchmark, for every inversion
    "controller": "refine",
    "self_cells": 1024,
    "mapper": "official",
    "cross_replace_steps": 0.4,
    "self_replace_steps": 0.6,
    "equalizer": [{"dog": 2}, {"dog": 2}, None],
}


@pytest.mark.parametrize(
    "method",
    ["prompt_to_prompt", "pnp_inversion", "pnp_inversion+prompt_to_prompt",
     "null_text+prompt_to_prompt",
     "negative_prompt+prompt_to_prompt", "ddim_inversion+prompt_to_prompt"],
)  # fmt: skip
def test_prompt_to_prompt_gets_the_benchmark_s_settings(folder, method):
    """All of them that the method has; a file without blended words weighs nothing."""
    tasks, known = read_tasks(folder), find(method).parameters
    told = arguments(method, tasks)
    assert {k: told.get(k) for k in PROTOCOL if k in known} == {
        k: v for k, v in PROTOCOL.items() if k in known
    }
    assert told.keys() <= known.keys() and "cross_replace_steps" in known
    assert not {"equalizer", "blend_words"} & arguments(method, tasks[2:]).keys()


def test_what_the_user_sets_wins_over_the_benchmark(folder, tmp_path, monkeypatch):
    seen = {}

    def edit(model, sources, method, **given):
        seen.update(given)
        return types.SimpleNamespace(images=sources)

    monkeypatch.setattr(pie.api, "edit", edit)
    options = {"controller": "auto", "cross_replace_steps": 0.8, "equalizer": "dog=3"}
    tasks = read_tasks(folder)
    sources = [np.zeros((SIDE, SIDE, 3), np.uint8)] * 3
    pie.Maker(None, "prompt_to_prompt", tmp_path, options)(sources, tasks)
    wanted = {k: PROTOCOL[k] for k in ("self_replace_steps", "self_cells", "mapper")} | options
    assert {k: seen[k] for k in wanted} == wanted


@pytest.fixture
def lacking(folder):
    """Edits whose source, whose target, and both of whose prompts lack their word."""
    place = folder / "mapping_file.json"
    entries = json.loads(place.read_text())
    entries["000"]["original_prompt"] = "a blue background"
    entries["111"]["blended_word"] = "cat tiger"
    entries["922"]["blended_word"] = "dog cat"
    place.write_text(json.dumps(entries))
    return folder


def test_an_edit_goes_by_the_word_that_is_there(lacking):
    told = arguments("prompt_to_prompt", read_tasks(lacking))
    neither = {"source": "dog", "prompt": "cat"}
    assert told["blend_words"] == [{"prompt": "dog"}, {"source": "cat"}, neither]
    assert told["equalizer"] == [{"dog": 2}, None, None]


@pytest.mark.slow
def test_pictures_of_one_word_are_edited_and_those_of_none_refused(lacking, tmp_path):
    """The first only where its target's word looks, which a threshold of 1 leaves nowhere."""
    model, tasks = de.load(str(GOLDEN / "12_pipelines" / "sd1")), read_tasks(lacking)
    sources = [images.read(lacking / "annotation_images" / t.path).pixels for t in tasks]
    given = {"steps": 2, "size": 32, "blend_start": 0.0}

    def run(name, **more):
        maker = pie.Maker(model, "prompt_to_prompt", tmp_path / name, given | more)
        return maker(sources, tasks)

    edited, shut = run("edited"), run("shut", blend_threshold=1.0)
    kept = [(a == b).all(axis=-1).mean() for a, b in zip(edited[:2], shut[:2], strict=True)]
    assert max(kept) < 1
    stays = run("source", blend_threshold=1.0, equalizer=None, guidance=1.0)
    assert all((a == b).all() for a, b in zip(shut[:2], stays[:2], strict=True))
    assert edited[2].startswith("the word 'dog' is not in the prompt 'a cat on")


@pytest.mark.parametrize(
    ("words", "lacks"),
    [("cat dog", False), ("", False), ("Cat dog", False), ("cat tiger", True), ("dog dog", True),
     ("dog cat", True), ("lion tiger", True)],
)  # fmt: skip
def test_a_blended_word_belongs_to_its_own_prompt(tmp_path, words, lacks):
    found = {"a": entry("a.png", "1", [], words)}
    (tmp_path / "mapping_file.json").write_text(json.dumps(found))
    assert lacks_a_word(read_tasks(tmp_path)[0]) == lacks


def test_a_maker_keeps_what_it_made_and_survives_a_refusal(folder, tmp_path, monkeypatch):
    tasks, calls = read_tasks(folder), []

    def edit(model, sources, method, *, prompt, seed, original_size):
        calls.append(len(sources))
        if len(sources) > 1:
            raise UserError("one of them is wrong")
        if sources[0][0, 0, 0] == 0:
            raise UserError("this one")
        return types.SimpleNamespace(images=[np.full((SIDE, SIDE, 3), 7, np.uint8)])

    monkeypatch.setattr(pie.api, "edit", edit)
    sources = [np.full((SIDE, SIDE, 3), k, np.uint8) for k in range(3)]
    maker = pie.Maker(None, "sdedit", tmp_path)
    first = maker(sources, tasks)
    assert first[0] == "this one" and (first[1] == 7).all() and calls == [3, 1, 1, 1]
    again = maker(sources[1:], tasks[1:])
    assert (again[0] == 7).all() and (again[1] == 7).all() and len(calls) == 4
