"""Measuring methods, on methods whose pictures are known beforehand: no network is asked."""

import json
import types

import numpy as np
import pytest

from diffedit_jax.bench import entrants as takers
from diffedit_jax.bench import method_figures, method_report
from diffedit_jax.bench import quality_of_methods as methods_bench
from diffedit_jax.bench.entrants import Entrant
from diffedit_jax.bench.quality_of_methods import Plan, edits_of
from diffedit_jax.bench.report_table import document
from diffedit_jax.errors import UserError
from diffedit_jax.scenes import instruction, world
from diffedit_jax.training.pairs import never_trained

KINDS, COUNT = ("object", "background", "style", "reconstruct"), 8
ENTRANTS = [
    Entrant("sdedit 0.4", "sdedit", "emoji", {"strength": 0.4}),
    Entrant("sdedit 0.9", "sdedit", "emoji", {"strength": 0.9}),
    Entrant("diffedit", "diffedit", "emoji", {}),
    Entrant("null_text", "null_text", "emoji", {}),
]


def plan(folder, entrants=ENTRANTS, kinds=KINDS):
    return Plan(
        folder, list(entrants), {"generate": "it edits no picture"}, kinds, COUNT, 0, "emoji"
    )


class Pretend:
    """Knows the answers: diffedit gives the truth, sdedit a mixture, null_text refuses styles."""

    def __init__(self):
        pairs = [edit for kind in KINDS for edit in edits_of(kind, COUNT, 0)]
        self.truth = {(e.source_image.tobytes(), e.target_caption): e.target_image for e in pairs}
        self.asked = []

    def __call__(self, model, pictures, method, *, prompt, strength=None, **told):
        self.asked.append((method, strength))
        if method == "null_text" and "of" in prompt[0].split():
            raise UserError("null_text knows no styles")
        truth = np.stack(
            [self.truth[p.tobytes(), t] for p, t in zip(pictures, prompt, strict=True)]
        )
        if method == "diffedit":
            return types.SimpleNamespace(image=truth)
        noise = np.random.default_rng(0).normal(0, 30 * (strength or 1), pictures.shape)
        shown = truth if strength == 0.9 else pictures
        return types.SimpleNamespace(image=np.clip(shown + noise, 0, 255).astype(np.uint8))


@pytest.fixture
def pretend(monkeypatch):
    return pretended(monkeypatch)


def pretended(monkeypatch):
    model = types.SimpleNamespace(origin={"digest": "x"}, defaults={"steps": 25, "guidance": 2.0})
    for module in (methods_bench, method_figures):
        monkeypatch.setattr(module, "load", lambda source: model)
    monkeypatch.setattr(method_figures, "reconstruct", lambda model, pictures: pictures)
    monkeypatch.setattr(methods_bench, "seconds_per_row", lambda model, batch: 0.0)
    answers = Pretend()
    monkeypatch.setattr(methods_bench.api, "edit", answers)
    return answers


def quiet(text):
    pass


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """(figures, folder) of a whole report."""
    here = plan(tmp_path_factory.mktemp("report"))
    with pytest.MonkeyPatch.context() as patched:
        pretended(patched)
        methods_bench.run(here, say=quiet)
        return method_report.write_report(here), here.folder


def test_the_report_says_who_did_what(reported):
    found, folder = reported
    for kind in ("object", "background", "style"):
        assert found["gains"][kind]["diffedit"]["verdict"] == "better"
    objects = found["kinds"]["object"]
    assert objects["diffedit"]["psnr_kept"]["value"] == 99
    assert objects["diffedit"]["success"] == objects["the truth"]["success"]
    assert objects["sdedit 0.4"]["success"]["value"] == 0
    assert found["refused"] == {"null_text": {"style": "null_text knows no styles"}}
    assert set(found["kinds"]["reconstruct"]) == {"the source, coded", "null_text"}
    assert found == json.loads((folder / "quality.json").read_text())


def test_the_page_needs_nothing_beside_itself(reported):
    found, folder = reported
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 3 and "null_text knows no styles" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert page.count("src=") == page.count('src="data:image/png;base64,') > 10
    assert "diffedit" in method_report.table(found) and "sdedit 0.9" in method_report.table(found)
    assert (folder / "sheet.png").stat().st_size > 10_000


def test_a_run_that_was_stopped_asks_only_for_the_rest(pretend, tmp_path, monkeypatch):
    here, answer = plan(tmp_path), pretend.__call__
    total = len(here.pieces())

    def stopped(*given, **told):
        if len(pretend.asked) == 3:
            raise KeyboardInterrupt
        return answer(*given, **told)

    monkeypatch.setattr(methods_bench.api, "edit", stopped)
    with pytest.raises(KeyboardInterrupt):
        methods_bench.run(here, say=quiet)
    assert len(method_figures.missing(here)) == total - 3
    monkeypatch.setattr(methods_bench.api, "edit", pretend)
    pretend.asked.clear()
    methods_bench.run(here, say=quiet)
    assert len(pretend.asked) == total - 3 and not method_figures.missing(here)
    methods_bench.run(here, say=quiet)
    assert len(pretend.asked) == total - 3


def test_shards_share_the_entrants(pretend, tmp_path):
    here = plan(tmp_path)
    methods_bench.run(here, (0, 2), quiet)
    first = set(pretend.asked)
    assert 0 < len(method_figures.missing(here)) < len(here.pieces())
    pretend.asked.clear()
    methods_bench.run(here, (1, 2), quiet)
    assert not first & set(pretend.asked) and not method_figures.missing(here)


def test_another_seed_or_option_is_another_piece(pretend, tmp_path):
    here = plan(tmp_path)
    other = Plan(tmp_path, here.entrants, {}, here.kinds, COUNT, 1, "emoji")
    changed = Entrant("diffedit", "diffedit", "emoji", {"steps": 10})
    names = {here.file(ENTRANTS[2], "object"), other.file(ENTRANTS[2], "object"),
             here.file(changed, "object")}  # fmt: skip
    assert len(names) == 3


def test_every_registered_method_is_in_or_left_out_with_a_reason():
    from diffedit_jax.methods import methods

    found, left_out = takers.entrants("emoji")
    assert {e.method for e in found} | set(left_out) == set(methods())
    assert "generate" in left_out and all(left_out.values())
    assert len({e.name for e in found}) == len(found)
    assert sum(e.baseline for e in found) == len(takers.STRENGTHS)
    with pytest.raises(UserError, match="did you mean"):
        takers.entrants("emoji", ["difedit"])


@pytest.mark.parametrize("kind", ["object", "style", "add"])
def test_methods_are_told_what_they_take_and_no_more(kind):
    from diffedit_jax.methods import find

    edits = edits_of(kind, 4, 0)
    for entrant in takers.entrants("emoji", steps=7)[0]:
        if not takers.takes_part(entrant, kind):
            continue
        told, known = takers.arguments(entrant, edits, range(4)), find(entrant.method).parameters
        assert set(told) <= set(known)
        assert all(p.name in told for p in known.values() if p.required)
        by_order, by_example = entrant.method == "instruct_pix2pix", "example" in told
        words = [instruction(e) if by_order else e.target_caption for e in edits]
        assert told.get("prompt", words) == words and ("prompt" in told) != by_example
        assert ("mask" in told) == (by_example or entrant.method == "inpaint")
        assert told.get("steps", 7) == 7


def test_an_order_of_kinds_and_a_wrong_one():
    assert takers.every_kind(["colour", "object"]) == ("object", "colour")
    assert takers.every_kind()[-1] == "reconstruct"
    with pytest.raises(UserError, match="unknown kind"):
        takers.every_kind(["colours"])


def test_the_table_names_the_steps_that_ran():
    entrants = {e.name: {"method": e.method, "model": "emoji", "steps": 7} for e in ENTRANTS}
    options = {"edits": 8, "seed": 0, "model": "emoji", "defaults": {"steps": 50, "guidance": 2.0},
               "lpips": True, "entrants": entrants}  # fmt: skip
    found = {"options": options, "kinds": {}, "methods": {}, "left_out": {}, "refused": {}}
    assert "(guidance 2, steps 7)" in document(found)
    entrants["diffedit"]["steps"] = 9
    assert "(guidance 2, steps 50)" in document(found)


def test_unseen_edits_are_asked_of_whom_they_test():
    swaps, objects = (edits_of(kind, 10, 0) for kind in ("unseen_swap", "unseen_object"))
    assert all(never_trained(edit) for edit in swaps)
    assert {edit.target.things[0].name for edit in objects} == set(world.HELD_OUT_OBJECTS)
    for edit in (*swaps, *objects):
        assert edit.source.style == "none" and len(edit.source.things) == 1
        assert (edit.source_image == edit.target_image).all(-1)[~edit.mask].all()
    everybody = ["sdedit", "diffedit", "instruct_pix2pix", "paint_by_example"]
    asked = {
        kind: {name for name in everybody if takers.takes_part(Entrant(name, name, "", {}), kind)}
        for kind in ("unseen_swap", "unseen_object")
    }
    assert asked["unseen_swap"] == {"sdedit", "instruct_pix2pix"}
    assert asked["unseen_object"] == {"paint_by_example"}


def test_the_clock_learns_from_what_was_done(monkeypatch):
    now = iter([0.0, 10.0, 70.0, 130.0])
    monkeypatch.setattr(methods_bench.time, "monotonic", lambda: next(now))
    clock = methods_bench.Clock([100, 100, 400])
    clock.calibrate(0.3)
    assert clock.minutes() == pytest.approx(600 * 0.3 / 60)
    assert clock.lap() == 60 and clock.minutes() == pytest.approx(500 * 0.6 / 60)
    assert clock.lap() == 60 and clock.minutes() == pytest.approx(4)
