"""The examples of the documentation run, and show what they say they show."""

import importlib.util
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parent.parent.parent / "docs" / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run_here() -> None:
    tested = {name.removeprefix("test_") for name in globals()}
    assert {path.stem for path in FOLDER.glob("*.py")} <= tested


def test_every_example_is_shown_on_a_page() -> None:
    pages = "".join(path.read_text("utf-8") for path in FOLDER.parent.rglob("*.md"))
    for path in FOLDER.glob("*.py"):
        # As the site's snippets read it; in a block that says ```python, ruff would format the dashes as an expression.
        assert f'``` {{.python}}\n--8<-- "examples/{path.name}"\n```' in pages


def test_prune_and_store(tmp_path: Path) -> None:
    found = example("prune_and_store").main(tmp_path)
    assert found["weights"] <= 0.05 * (196 * 128 + 128 * 10) + 138  # biases stay
    assert found["bytes"] == (tmp_path / "mlp.cjx").stat().st_size
    assert found["bytes"] < found["dense bytes"] / 12
    assert found["test accuracy of the file"] > 0.8


def test_shrink_resnet() -> None:
    found = example("shrink_resnet").main()
    assert found["masked against cut, largest difference"] < 1e-4
    assert found["multiply-adds, times fewer"] >= 2
    assert found["test accuracy"] > 0.8


def test_search_amounts() -> None:
    found = example("search_amounts").main()
    ways = ("the same share", "CMA-ES", "random search")
    assert max(found[f"{way}: share of the multiply-adds"] for way in ways) <= 0.2501
    errors = [found[f"{way}: masked validation error"] for way in ways]
    assert min(errors[1:]) <= errors[0]  # a search starts at the same share everywhere
    assert min(found[f"{way}: test accuracy"] for way in ways) > 0.6
