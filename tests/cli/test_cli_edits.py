"""What a command writes: the right picture under the right name, with its recipe."""

import json

import numpy as np
import pytest
from PIL import Image

from diffedit_jax import images, recipe

from .conftest import calls

NEGATE = ("--method", "negate", "--prompt", "a dog")


def pixels(path):
    return images.read(path).pixels


def test_one_picture(pictures, diffedit):
    code, out, err = diffedit("edit", "cat.png", *NEGATE, "--seed", "7", "--out", "dog.png")
    assert (code, out) == (0, "") and "wrote dog.png" in err
    edited, source = pixels("dog.png"), pixels("cat.png")
    np.testing.assert_array_equal(edited[..., 2], 255 - source[..., 2])
    assert (edited[..., 0] == len("a dog")).all() and (edited[..., 1] == 7).all()
    said = recipe.from_png("dog.png")
    assert said["method"] == "negate" and said["inputs"]["image"]["path"] == "cat.png"
    assert said["parameters"]["prompt"] == "a dog" and said["parameters"]["seed"] == 7


def test_quiet_says_nothing(diffedit):
    assert diffedit("edit", "cat.png", *NEGATE, "--out", "dog.png", "--quiet") == (0, "", "")


def test_notices_are_said_once(pictures, diffedit):
    Image.new("RGBA", (64, 48), (0, 0, 0, 0)).save("clear.png")
    words = ("clear.png", "--method", "negate", "--prompt", "x" * 2000, "--seed", 0, "--seed", 1)
    _, _, err = diffedit("edit", *words, "--batch", 1, "--out", "many/")
    assert err.count("transparent") == 1 and err.count("the prompt is long") == 1


def test_options_reach_the_method_with_their_types(pictures, diffedit):
    words = ("--steps", "3", "--strength", "0.5", "--solver", "ddim", "--mask", "mask.png")
    pairs = ("--set", "tidy=yes", "--set", "word=hello=you", "--size", "32")
    assert diffedit("edit", "cat.png", *NEGATE, *words, *pairs, "--out", "d.png")[0] == 0
    said = recipe.from_png("d.png")["parameters"]
    expected = dict(steps=3, strength=0.5, solver="ddim", tidy=True, word="hello=you", size=32)
    assert {k: said[k] for k in expected} == expected
    assert calls == [(1, (24, 32), ["a dog"], (1, 24, 32))]
    assert pixels("d.png").shape == (24, 32, 3)


def test_pictures_times_prompts_times_seeds(pictures, diffedit):
    words = ("--prompt", "aa", "--prompt", "bbb", "--seed", 1, "--seed", 2, "--method", "negate")
    code, _, err = diffedit("edit", "cat.png", "wide.png", *words, "--out", "many")
    assert code == 0 and "8 pictures" in err
    names = {f"{image}-p{p}-s{s}.png" for image in ("cat", "wide") for p in (1, 2) for s in (1, 2)}
    assert {p.name for p in (pictures / "many").iterdir()} == names
    for p, letters in ((1, 2), (2, 3)):
        for s in (1, 2):
            assert pixels(f"many/cat-p{p}-s{s}.png")[0, 0, :2].tolist() == [letters, s]
    assert [(n, canvas) for n, canvas, *_ in calls] == [(4, (48, 64)), (4, (16, 64))]


def test_a_folder_is_edited_in_full_batches(pictures, diffedit):
    (pictures / "in").mkdir()
    for i in range(5):
        Image.new("RGB", (64, 64), (i, i, i)).save(f"in/{i}.png")
    (pictures / "in" / "notes.txt").write_text("no picture")
    assert diffedit("edit", "in", *NEGATE, "--batch", 2, "--out", "done/")[0] == 0
    assert [n for n, *_ in calls] == [2, 2, 2]  # the last is filled up, one program serves all
    for i in range(5):
        assert (pixels(f"done/{i}.png")[..., 2] == 255 - i).all()
        assert recipe.from_png(f"done/{i}.png")["inputs"]["image"]["path"] == f"in/{i}.png"


def test_equal_names_do_not_overwrite_each_other(pictures, diffedit):
    (pictures / "other").mkdir()
    Image.new("RGB", (64, 48)).save("other/cat.png")
    assert diffedit("edit", "cat.png", "other/cat.png", *NEGATE, "--out", "done")[0] == 0
    assert {p.name for p in (pictures / "done").iterdir()} == {"cat.png", "cat-2.png"}


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_a_list_of_edits(pictures, diffedit, kind):
    rows = [
        dict(image="cat.png", prompt="a", seed=3, out="one.png"),
        dict(image="cat.png", prompt="bb", mask="mask.png", steps=2),
        dict(image="wide.png", prompt="ccc", word="x"),
    ]
    (pictures / "lists").mkdir()
    for name in ("cat.png", "wide.png", "mask.png"):
        (pictures / "lists" / name).write_bytes((pictures / name).read_bytes())
    text = json.dumps(rows)
    if kind == "jsonl":
        text = "\n".join(map(json.dumps, rows))
    if kind == "csv":
        keys = ["image", "prompt", "seed", "out", "mask", "steps", "word"]
        lines = [",".join(str(row.get(key, "")) for key in keys) for row in rows]
        text = "\n".join([",".join(keys), *lines])
    (pictures / "lists" / f"edits.{kind}").write_text(text)
    words = ("--list", f"lists/edits.{kind}", "--method", "negate", "--seed", 8, "--out", "done")
    assert diffedit("edit", *words)[0] == 0
    assert pixels("done/one.png")[0, 0, :2].tolist() == [1, 3]
    assert pixels("done/0002-cat.png")[0, 0, :2].tolist() == [2, 8]
    said = recipe.from_png("done/0003-wide.png")["parameters"]
    assert said["word"] == "x" and said["steps"] == 4
    assert recipe.from_png("done/0002-cat.png")["parameters"]["steps"] == 2


def test_generate(pictures, diffedit):
    assert diffedit("generate", "A cat, on grass!", "--size", "48x32", "--out", "g.png")[0] == 0
    assert pixels("g.png").shape == (32, 48, 3)
    assert diffedit("generate", "A cat!", "a dog", "--seed", 1, "--seed", 2, "--out", "g/")[0] == 0
    names = {"a-cat-s1.png", "a-cat-s2.png", "a-dog-s1.png", "a-dog-s2.png"}
    assert {p.name for p in (pictures / "g").iterdir()} == names


def test_a_method_that_can_draw_its_picture_needs_none(pictures, diffedit):
    words = ("--method", "draw", "--prompt", "a cat", "--size", "48x32", "--out", "d.png")
    assert diffedit("edit", *words)[0] == 0
    assert pixels("d.png").shape == (32, 48, 3)
    assert diffedit("replay", "d.png")[1] == "identical\n"


def test_preview_writes_pictures_on_the_way(pictures, diffedit):
    words = ("--steps", 6, "--preview", 2, "--out", "dog.png")
    assert diffedit("edit", "cat.png", *NEGATE, *words)[0] == 0
    assert sorted(p.name for p in pictures.glob("dog.step*")) == [
        "dog.step-002.png",
        "dog.step-004.png",
    ]


def test_original_size(pictures, diffedit):
    words = ("wide.png", *NEGATE, "--original-size", "--out", "w.png")
    assert diffedit("edit", *words)[0] == 0
    assert pixels("w.png").shape == (32, 128, 3)


def test_replay_gives_the_same_picture_and_says_so(pictures, diffedit):
    diffedit("edit", "cat.png", *NEGATE, "--seed", 5, "--mask", "mask.png", "--out", "dog.png")
    code, out, _ = diffedit("replay", "dog.png")
    assert (code, out) == (0, "identical\n")
    np.testing.assert_array_equal(pixels("dog.replay.png"), pixels("dog.png"))
    assert recipe.from_png("dog.replay.png") == recipe.from_png("dog.png")
    diffedit("generate", "a cat", "--seed", 5, "--out", "g.png")
    assert diffedit("replay", "g.png")[1] == "identical\n"


def test_replay_of_one_picture_of_a_batch(pictures, diffedit):
    words = ("--seed", 1, "--seed", 2, "--method", "negate", "--prompt", "a", "--prompt", "bb")
    diffedit("edit", "cat.png", *words, "--out", "many")
    for path in sorted((pictures / "many").iterdir()):
        assert diffedit("replay", path, "--out", "again.png")[1] == "identical\n"


def test_replay_says_how_far_apart(pictures, diffedit):
    diffedit("edit", "cat.png", *NEGATE, "--out", "dog.png")
    said = recipe.from_png("dog.png")
    images.write("dog.png", pixels("dog.png") ^ 1, said)
    assert diffedit("replay", "dog.png")[1] == "different: PSNR 48.1 dB, at most 1 of 255 apart\n"
    images.write("dog.png", pixels("dog.png")[:9], said)
    assert "64x9 before, 64x48 now" in diffedit("replay", "dog.png")[1]


def test_replay_refuses_what_has_changed_or_is_hostile(pictures, diffedit, refused):
    diffedit("edit", "cat.png", *NEGATE, "--out", "dog.png")
    said = recipe.from_png("dog.png")
    assert "no recipe" in refused("replay", "cat.png")
    for path, value, word in [
        (("method",), "nonsense", "no method"),
        (("parameters", "steps"), "many", "steps"),
        (("parameters", "prompt"), {"a": 1}, "prompt"),
        (("parameters", "prompt"), "\ud800", "Unicode"),
        (("parameters", "seed"), 2**70, "seed"),
        (("parameters", "colour"), 1, "colour"),
        (("parameters", "size"), "x", "size"),
        (("model", "digest"), "other", "model"),
        (("model", "options"), {"config": "/"}, "options"),
        (("inputs", "image"), {"path": "/etc/passwd", "sha256": "0"}, "changed"),
        (("inputs", "image"), [], "inputs"),
        (("inputs", "image"), [said["inputs"]["image"]] * 2, "inputs"),
        (("inputs", "watch"), said["inputs"]["image"], "inputs"),
        (("inputs",), {}, "picture"),
        (("parameters", "size"), 10**9, "size"),
        (("parameters", "prompt"), ["a", "b"], "prompt"),
    ]:
        hostile = json.loads(json.dumps(said))
        place = hostile
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        images.write("hostile.png", pixels("dog.png"), hostile)
        assert word in refused("replay", "hostile.png"), path
    images.write("cat.png", pixels("cat.png") ^ 1)
    assert "cat.png has changed" in refused("replay", "dog.png")
