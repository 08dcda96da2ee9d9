"""Which part of the package may know which, read from the imports of every file."""

import ast
import io
import pathlib
import tokenize

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "diffedit_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
FORBIDDEN = {  # part: parts it must not know
    "core": {"*"},
    "solvers": {"*", "core", "errors"},
    "transforms": {"*", "core", "errors"},
    "losses": {"*", "core", "errors"},
    "models": {
        "core",
        "solvers",
        "transforms",
        "losses",
        "methods",
        "bundles",
        "checkpoints",
        "cli",
        "metrics",
    },
    "checkpoints": {"core", "solvers", "transforms", "losses", "methods", "bundles", "cli"},
    "bundles": {"methods", "cli", "bench"},
    "methods": {"models", "checkpoints", "cli", "bench"},
    "metrics": {"core", "solvers", "transforms", "losses", "methods", "scenes", "bench", "cli"},
    "scenes": {"core", "solvers", "models", "methods", "bundles", "checkpoints", "cli"},
}
GRANTED = {("models", "diffedit_jax.core.control")}  # what attention shows to a rule: Site
HEAVY = ("transformers", "orbax", "rich", "huggingface_hub", "PIL")


def imports(tree, path):
    """(dotted module, whether at module level) of every import, relative ones made absolute."""
    here = path.relative_to(PACKAGE.parent).with_suffix("").parts
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "diffedit_jax":
                yield from ((f"{module}.{alias.name}", id(node) in top) for alias in node.names)
            else:
                yield module, id(node) in top


def part(module):
    """The part of the package that a module belongs to, or None."""
    parts = module.split(".")
    return parts[1] if parts[0] == "diffedit_jax" and len(parts) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    rule = FORBIDDEN.get(own, set())
    for module, _ in imports(ast.parse(path.read_text()), path):
        other = part(module)
        if other is None or other == own or (own, module) in GRANTED:
            continue
        allowed = other in rule if "*" in rule else other not in rule
        assert allowed, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_torch_at_run_time_and_nothing_heavy_at_import(path):
    for module, at_top in imports(ast.parse(path.read_text()), path):
        root = module.split(".")[0]
        measured = path.parent.name == "bench" and not at_top  # the yardstick of `bench speed`
        torch = root in ("torch", "diffusers", "tensorflow")
        assert measured or not torch, f"{path} imports {module}"
        assert not (root in ("transformers", "orbax") and at_top), f"{path} imports {module} early"


def test_core_knows_jax_and_flax_struct_alone():
    allowed = {"__future__", "dataclasses", "functools", "typing", "collections", "numpy", "jax"}
    for path in (PACKAGE / "core").glob("*.py"):
        for module, _ in imports(ast.parse(path.read_text()), path):
            root = module.split(".")[0]
            assert root in allowed | {"flax"} or part(module) == "core", f"{path.name}: {module}"
            assert module != "flax" or "from flax import struct" in path.read_text()


def code_lines(source):
    """Lines that hold code: no blanks, comments or docstrings."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    strings = [node.body[0] for node in ast.walk(tree)
               if isinstance(node, documented) and ast.get_docstring(node)]  # fmt: skip
    prose = {line for s in strings for line in range(s.lineno, s.end_lineno + 1)}
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
              tokenize.ENDMARKER)  # fmt: skip
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - prose)


def test_the_core_stays_small():
    assert sum(code_lines(path.read_text()) for path in (PACKAGE / "core").glob("*.py")) < 500


def test_importing_the_library_loads_nothing_heavy():
    import subprocess
    import sys

    code = f"import sys, diffedit_jax; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          cwd=PACKAGE.parent)  # fmt: skip
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
