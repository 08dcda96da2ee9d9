"""The public names: there, lazy, and the same whatever was imported first."""

import subprocess
import sys

import pytest

import diffedit_jax as de


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_is_there():
    for name in de.__all__:
        assert callable(getattr(de, name))
    assert set(de.__all__) <= set(dir(de))
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = de.nothing_of_the_kind


@pytest.mark.parametrize("first", ["", "import diffedit_jax.methods", "import diffedit_jax.api"])
def test_methods_is_a_function_in_any_order_of_imports(first):
    assert "sdedit" in run(f"{first}\nimport diffedit_jax as de\nprint(sorted(de.methods()))")


def test_importing_the_library_imports_nothing_heavy():
    heavy = "{'transformers', 'orbax', 'PIL', 'torch', 'diffusers', 'huggingface_hub'}"
    code = (
        f"import sys, diffedit_jax as de\nde.edit, de.methods()\nprint({heavy} & set(sys.modules))"
    )
    assert run(code).strip() == "set()"
    assert run("import sys, diffedit_jax.cli\nprint('jax' in sys.modules)").strip() == "False"
