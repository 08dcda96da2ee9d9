"""What `pip install .` installs, and what works from there."""

import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def test_every_folder_with_code_is_a_package():
    """A folder without __init__.py works in a checkout and is left out of an installation."""
    folders = {path.parent for path in ROOT.glob("diffedit_jax/**/*.py")}
    assert len(folders) > 10
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_an_installed_package_finds_benches_and_the_trainings_of_a_checkout(tmp_path):
    """As `pip install .` leaves it: the package elsewhere, the checkout in front of the user."""
    elsewhere = tmp_path / "site"
    ignored = shutil.ignore_patterns("__pycache__", "assets", "sprites")
    shutil.copytree(ROOT / "diffedit_jax", elsewhere / "diffedit_jax", ignore=ignored)
    program = f"import sys; sys.path[:1] = [{str(elsewhere)!r}]; from diffedit_jax.cli import main"

    def told(words, folder):
        command = [sys.executable, "-c", f"{program}; sys.exit(main({words!r}))"]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)

    assert "speed" in told(["bench", "--help"], tmp_path).stdout
    assert "dreambooth_lora" in told(["train"], ROOT).stdout
    lost = told(["train"], tmp_path)
    assert lost.returncode == 2 and "run from a checkout" in lost.stderr
