"""Programs compiled for chips that are not there; the compiler's part needs libtpu."""

import importlib.util
import json

import pytest

from diffedit_jax.bench import tpu


def test_mistakes_get_one_line(capsys):
    assert tpu.main(["--what", "everything"]) == 2
    assert tpu.main(["--topology", "abacus:2x4"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "everything" in lines[0] and "v5e" in lines[1]


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is here")
def test_without_the_compiler_it_says_what_to_install(capsys):
    assert tpu.main(["--tiny"]) == 2
    assert "tpu-aot" in capsys.readouterr().err


def test_peers_miss_the_goals_that_they_set():
    for kind in ("unet", "loop"):
        lines = [line for row in tpu.PEERS[kind] for line in tpu.verdicts(kind, row)]
        assert any("NOT met" in line for line in lines)


def test_table_lines_up():
    head, first, second = tpu.table([*tpu.PEERS["unet"], *tpu.PEERS["loop"]]).splitlines()
    assert head.index("FLOPs") == first.index("1.63e+13") == second.index("3.22e+14")


@pytest.mark.heavy
def test_tiny_programs_need_no_collectives(tmp_path):
    pytest.importorskip("libtpu")
    out = tmp_path / "rows.json"
    assert tpu.main(["--tiny", "--steps", "3", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [row["collectives"] for row in rows] == ["none", "none"]
    assert all(row["flops"] > 0 and row["hbm"] > 0 for row in rows)
