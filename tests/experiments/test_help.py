"""Every program says what it does and explains its flags, without loading what it does not need for that."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent.parent / "experiments"
PROGRAMS = sorted(path.stem for path in FOLDER.glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8"))
COMPILERS = {"aot_cuda", "aot_steps", "aot_tpu"}  # their tables of kernels are made of JAX's types
HEAVY = ("flax", "jax", "matplotlib", "orbax", "sklearn")


def flag_definitions(tree: ast.Module) -> list[tuple[str, str]]:
    """Name and help of every flag that a program defines; the help is the last text among the arguments."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    defined = [call for call in calls if ast.unparse(call.func).startswith(("flags.DEFINE_", "config_flags.DEFINE_"))]
    texts = [[a.value for a in c.args if isinstance(a, ast.Constant) and isinstance(a.value, str)] for c in defined]
    return [(text[0], text[-1]) for text in texts]


def test_programs_are_found() -> None:
    assert {"compress", "shrink", "evolve", "inspect", "results"} <= set(PROGRAMS)


@pytest.mark.parametrize("name", [*PROGRAMS, "launch"])
def test_flags_are_explained_in_sentences(name: str) -> None:
    tree = ast.parse((FOLDER / f"{name}.py").read_text("utf-8"))
    if name != "launch":
        head = ast.get_docstring(tree)
        assert head, f"{name}: --help prints the module's docstring, and there is none"
        assert f"python -m experiments.{name}" in head, f"{name}: the docstring shows no command"
    poor = [flag for flag, text in flag_definitions(tree) if not (text[0].isupper() and text.endswith("."))]
    assert poor == []


def test_help_waits_for_no_library() -> None:
    light = [f"experiments.{name}" for name in PROGRAMS if name not in COMPILERS]
    code = f"import sys, {', '.join(light)}; print(sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_help_of_a_program_with_a_configuration() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.shrink", "--help"], cwd=FOLDER.parent, capture_output=True, text=True
    )
    assert "Cuts channels out of a trained network" in done.stdout
    assert "--config: Configuration file" in done.stdout
    assert "--workdir: Directory of the run" in done.stdout
    assert "distributed: Join the other processes" in done.stdout
