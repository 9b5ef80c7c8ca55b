"""The project's own rules: who may import whom, what is documented, and what must not be in the tree."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import pytest

import compressjax

ROOT = Path(__file__).parent.parent

# Lower rows may import upper rows, never the other way.
ROOMS = [
    "trees",
    "projections",
    "quantizers",
    "scores",
    "masks",
    "training",
    "channels",
    "oneshot",
    "cost",
    "storage",
    "runtime",
    "search",
    "gan",
    "prefetch",
    "redundancy",
    "robustness",
    "data",
    "zoo",
    "interop",
]
FLAX_ROOMS = {"zoo", "interop"}
OURS = {"compressjax", "pallas_kernels", "experiments", "configs", "tests"}

# Patterns are put together from pieces, so that this file does not contain what it forbids.
FORBIDDEN_TEXT = {
    "package registry": "|".join(
        [r"py" + r"pi\.org", "python" + "hosted", r"deb\." + r"debian", r"registry\." + "npm"]
    ),
    "machine path": "|".join("/" + name + "/" for name in ("work", "root", "farm", r"home/\w+", r"Users/\w+")),
}
FORBIDDEN_CODE = {
    "unfinished mark": r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "NotImplemented" + "Error"]) + r")\b",
    "private JAX": r"jax\." + "_src",
    "sparse JAX": r"jax\.experimental" + r"(\.| import )sparse",
}


@cache
def project_files() -> tuple[Path, ...]:
    """Files that git tracks or would track; in an unpacked archive, everything but hidden and built files."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names = [Path(line) for line in listing.stdout.splitlines()]
    if listing.returncode or not names:
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        built = {"build", "dist", "runs", "__pycache__"}
        names = [p for p in found if not built & set(p.parts) and not any(part.startswith(".") for part in p.parts)]
    return tuple(name for name in sorted(names) if (ROOT / name).is_file())


def sources(*tops: str) -> list[Path]:
    return [path for path in project_files() if path.suffix == ".py" and (not tops or path.parts[0] in tops)]


def text_of(path: Path) -> str | None:
    """The text of a file, or None for a binary one."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def imports(source: str, path: Path) -> Iterator[str]:
    """Every module a file imports, anywhere in it, as a dotted name; relative imports are resolved.

    ``from package import name`` yields ``package.name``, because `name` may be a module.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = list(path.parts[: -node.level]) if node.level else []
            stem = ".".join([*package, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def room_of(dotted: str) -> str | None:
    """The room a dotted name lies in: ``compressjax.masks._ramps`` is in ``masks``."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "compressjax" and len(parts) > 1 and parts[1] in ROOMS else None


def violations(source: str, path: Path) -> list[str]:
    """What a file imports against the table of rooms and folders."""
    found = []
    top = path.parts[0]
    own = room_of(".".join(path.with_suffix("").parts))
    for name in imports(source, path):
        head = name.split(".")[0]
        if top == "compressjax":
            target = room_of(name)
            if target and own and ROOMS.index(target) > ROOMS.index(own):
                found.append(f"{path}: {own} may not import {target}, a lower room")
            if head == "flax" and own not in FLAX_ROOMS:
                found.append(f"{path}: only {' and '.join(sorted(FLAX_ROOMS))} import Flax")
            if head == "pallas_kernels" and own != "runtime":
                found.append(f"{path}: only runtime imports pallas_kernels")
            if head in OURS - {"compressjax", "pallas_kernels"}:
                found.append(f"{path}: the library may not import {head}")
        elif top == "pallas_kernels":
            if head not in {"pallas_kernels", "jax", "jaxtyping", "numpy"} | sys.stdlib_module_names:
                found.append(f"{path}: pallas_kernels knows JAX only, not {head}")
        elif top == "configs":
            if head not in {"configs", "experiments", "ml_collections"} | sys.stdlib_module_names:
                found.append(f"{path}: a config imports the schemas of experiments, not {head}")
        elif top == "experiments" and head == "tests":
            found.append(f"{path}: programs may not import tests")
    return found


def test_imports_follow_the_table_of_rooms() -> None:
    found = [v for path in sources(*OURS - {"tests"}) for v in violations((ROOT / path).read_text("utf-8"), path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source", "rule"),
    [
        ("compressjax/masks/_a.py", "from compressjax import training", "a lower room"),
        ("compressjax/masks/_a.py", "from ..training._admm import admm", "a lower room"),
        ("compressjax/trees.py", "def f():\n  import compressjax.zoo", "a lower room"),
        ("compressjax/storage/_a.py", "from flax.core import FrozenDict", "import Flax"),
        ("compressjax/storage/_a.py", "import pallas_kernels", "only runtime"),
        ("compressjax/data/_a.py", "from experiments.schema import Config", "may not import experiments"),
        ("pallas_kernels/_a.py", "import optax", "JAX only"),
        ("configs/a.py", "from compressjax import zoo", "schemas"),
        ("experiments/a.py", "from tests.conftest import CACHE", "may not import tests"),
    ],
)
def test_a_forbidden_import_is_seen(path: str, source: str, rule: str) -> None:
    assert [rule in violation for violation in violations(source, Path(path))] == [True]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("compressjax/training/_a.py", "from compressjax import masks, trees\nimport optax"),
        ("compressjax/training/__init__.py", "from ._admm import admm\nfrom ..masks import apply"),
        ("compressjax/zoo/_a.py", "from flax import linen as nn"),
        ("experiments/a.py", "from compressjax import zoo\nimport flax"),
    ],
)
def test_an_allowed_import_passes(path: str, source: str) -> None:
    assert violations(source, Path(path)) == []


def test_every_room_is_listed_and_has_a_place_in_the_table() -> None:
    library = ROOT / "compressjax"
    on_disk = {path.parent.name for path in library.glob("*/__init__.py")}
    on_disk |= {path.stem for path in library.glob("*.py")} - {"__init__"}
    assert on_disk == set(compressjax.__all__)
    assert on_disk <= set(ROOMS)


def test_no_source_file_is_longer_than_600_lines() -> None:
    long = [str(path) for path in sources() if len((ROOT / path).read_text("utf-8").splitlines()) > 600]
    assert not long


@pytest.mark.parametrize("what", [*FORBIDDEN_TEXT, *FORBIDDEN_CODE])
def test_the_tree_is_free_of(what: str) -> None:
    pattern = re.compile((FORBIDDEN_TEXT | FORBIDDEN_CODE)[what])
    searched = project_files() if what in FORBIDDEN_TEXT else sources()
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path in searched
        for number, line in enumerate((text_of(path) or "").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, f"{what} in:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("machine path", "see /" + "root/data"),
        ("package registry", "https://py" + "pi.org/simple"),
        ("unfinished mark", "# TO" + "DO: later"),
        ("private JAX", "from jax." + "_src import core"),
        ("sparse JAX", "from jax.experimental " + "import sparse"),
    ],
)
def test_a_forbidden_text_is_seen(what: str, line: str) -> None:
    assert re.search((FORBIDDEN_TEXT | FORBIDDEN_CODE)[what], line)


def test_relative_links_in_the_documentation_lead_somewhere() -> None:
    broken = []
    for path in (path for path in project_files() if path.suffix == ".md"):
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", text_of(path) or "", flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s#]+)", prose):
            if not re.match(r"\w+:", target) and not (ROOT / path.parent / target).exists():
                broken.append(f"{path}: {target}")
    assert not broken, "\n".join(broken)


def test_every_page_is_linked_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    pages = [path for path in project_files() if path.parts[0] == "docs" and path.suffix == ".md"]
    assert [str(p) for p in pages if p.name != "index.md" and f"({p.relative_to('docs')})" not in index] == []


def documented(room: ModuleType) -> dict[str, object]:
    """The public functions, classes and submodules of a room; constants and type aliases cannot hold a docstring."""
    names = getattr(room, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(room).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == room.__name__
        ]
    public = {f"{room.__name__}.{name}": getattr(room, name) for name in names}
    return {
        name: value
        for name, value in public.items()
        if (inspect.isclass(value) or inspect.ismodule(value) or callable(value)) and hasattr(value, "__name__")
    }


def runs_nothing(value: object) -> bool:
    """Protocols have nothing to run; the NamedTuple state of a transform appears in the transform's example."""
    return inspect.isclass(value) and (getattr(value, "_is_protocol", False) or hasattr(value, "_fields"))


@pytest.mark.parametrize("name", compressjax.__all__)
def test_every_public_symbol_is_documented_with_an_example(name: str) -> None:
    room = importlib.import_module(f"compressjax.{name}")
    assert room.__doc__, f"compressjax.{name} needs a module docstring"
    public = documented(room)
    for value in list(public.values()):
        if inspect.ismodule(value):
            public |= documented(value)
    missing = []
    for path, value in public.items():
        text = value.__doc__ or ""
        # A dataclass or NamedTuple without a docstring is given its own signature as one.
        if not text.strip() or text.startswith(f"{getattr(value, '__name__', '')}("):
            missing.append(f"{path}: no docstring")
        elif ">>>" not in text and not inspect.ismodule(value) and not runs_nothing(value):
            missing.append(f"{path}: no example")
    assert not missing, "\n".join(missing)


def imported_by(statement: str) -> set[str]:
    """The top-level packages that are loaded in a fresh interpreter after a statement."""
    code = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_library_loads_nothing_heavy() -> None:
    assert not imported_by("import compressjax") & {"jax", "flax", "matplotlib", "numpy", "optax", "sklearn"}


def test_only_the_flax_rooms_load_flax() -> None:
    light = [f"compressjax.{name}" for name in compressjax.__all__ if name not in FLAX_ROOMS]
    heavy = {"flax", "matplotlib", "sklearn", "evosax", "ml_collections"}
    assert not imported_by(f"import {', '.join(light)}") & heavy


def test_an_unknown_room_is_refused_by_name() -> None:
    with pytest.raises(AttributeError, match=r"no room 'prunig'; it has .*projections"):
        _ = compressjax.prunig


def test_rooms_are_listed_for_completion() -> None:
    assert set(compressjax.__all__) <= set(dir(compressjax))


def test_the_tests_run_on_two_devices() -> None:
    assert jax.device_count() >= 2


def test_rank_promotion_raises() -> None:
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)


def test_shapes_and_types_are_checked_at_run_time() -> None:
    # The import hook is what makes the annotations of the library more than decoration.
    with pytest.raises(Exception, match="Called with parameters"):
        compressjax.trees.path_string(3)


def test_everything_but_the_inner_loops_of_the_coder_is_checked(request: pytest.FixtureRequest) -> None:
    per_bit = {"_coder", "_context", "_logistic", "_mixing", "_models"}
    storage = {path.stem for path in (ROOT / "compressjax" / "storage").glob("*.py")} - {"__init__"}
    assert per_bit < storage
    wanted = {f"compressjax.{room}" for room in compressjax.__all__ if room != "storage"}
    wanted |= {f"compressjax.storage.{module}" for module in storage - per_bit}
    *checked, checker = request.config.getoption("--jaxtyping-packages").split(",")
    assert set(checked) == wanted | {"pallas_kernels"}
    assert checker == "beartype.beartype"


def test_the_wheel_holds_the_library_only() -> None:
    tomllib = importlib.import_module("tomllib")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["compressjax", "pallas_kernels"]


@pytest.mark.parametrize("path", sorted((ROOT / "constraints").glob("*.txt")), ids=lambda path: path.name)
def test_constraints_pin_names_and_nothing_else(path: Path) -> None:
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+-]+", line)] == []
