"""Lists everything public, one line per symbol: what a user may rely on, and what may not change by accident.

    python -m experiments.public_api [--check]

The list is ``docs/public_api.txt``.  The pages of the reference are made from it, and a test compares it with the code:
whoever changes a name, a parameter or a simple default runs this program and so shows the change in the same commit.
"""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import app, flags

from experiments.launch import refuse_arguments

LIST = Path(__file__).parent.parent / "docs" / "public_api.txt"
PACKAGES = ("compressjax", "pallas_kernels")
SIMPLE = (bool, int, float, str, bytes, type(None))


def modules() -> list[str]:
    """The public modules: the rooms of the library, what is public inside them, and the kernels' front door.

    >>> names = modules()
    >>> "compressjax.masks" in names, "compressjax.search.expressions" in names, "compressjax.masks._apply" in names
    (True, True, False)
    """
    import compressjax

    found = []
    for room in compressjax.__all__:
        module = importlib.import_module(f"compressjax.{room}")
        found.append(module.__name__)
        inside = pkgutil.iter_modules(getattr(module, "__path__", []))
        found += [f"{module.__name__}.{info.name}" for info in inside if not info.name.startswith("_")]
    return [*found, "pallas_kernels"]


def public_names(module: ModuleType) -> list[str]:
    """What a module offers: its ``__all__``, or else what it defines without an underscore."""
    stated = getattr(module, "__all__", None)
    if stated is not None:
        return sorted(stated)
    defined = (name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__)
    return sorted(name for name in defined if not name.startswith("_"))


def lines() -> Iterator[str]:
    """The list, line by line, in alphabetical order within each module."""
    for name in modules():
        module = importlib.import_module(name)
        for symbol in public_names(module):
            value = getattr(module, symbol)
            if not inspect.ismodule(value):  # a public module has lines of its own
                yield from described(f"{name}.{symbol}", value)


def described(path: str, value: Any) -> Iterator[str]:
    """One line for a function or constant; for a class one more per public method and property."""
    if not inspect.isclass(value):
        yield path + (signature(value) if callable(value) else "")
        return
    yield path + signature(value)
    for name in sorted({name for kind in ours(value) for name in vars(kind) if not name.startswith("_")}):
        member = inspect.getattr_static(value, name)
        if isinstance(member, (staticmethod, classmethod)):
            yield f"{path}.{name}{signature(getattr(value, name))}"
        elif inspect.isfunction(member) or hasattr(member, "__wrapped__"):
            yield f"{path}.{name}{signature(member)}"
        elif isinstance(member, property):
            yield f"{path}.{name}"


def ours(kind: type) -> list[type]:
    """The classes of this project that a class consists of."""
    return [base for base in kind.__mro__ if base.__module__.partition(".")[0] in PACKAGES]


def signature(value: Callable[..., Any]) -> str:
    """Parameters with their simple defaults; others are shown as ``...``, annotations are left out.

    >>> def f(a, /, b: int = 3, *, c=(1, 2), d=print): ...
    >>> signature(f)
    '(a, /, b=3, *, c=(1, 2), d=...)'
    """
    if getattr(value, "_is_protocol", False):  # nobody calls it, and Python versions differ in what they say
        return ""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):  # an enumeration, a class without a constructor of its own
        return ""
    empty = inspect.Parameter.empty
    plain = [
        p.replace(annotation=empty, default=p.default if p.default is empty else Shown(p.default))
        for p in found.parameters.values()
    ]
    return str(found.replace(parameters=plain, return_annotation=inspect.Signature.empty))


class Shown:
    """Stands for a default value in a signature: itself if it is simple, ``...`` if it is an object."""

    def __init__(self, value: Any) -> None:
        whole = isinstance(value, SIMPLE) or (isinstance(value, tuple) and all(isinstance(v, SIMPLE) for v in value))
        self.text = repr(value) if whole else "..."

    def __repr__(self) -> str:
        return self.text


def main(argv: list[str]) -> None:
    """Writes the list, or with ``--check`` only compares it."""
    refuse_arguments(argv)
    text = "\n".join(lines()) + "\n"
    if not flags.FLAGS.check:
        LIST.write_text(text, encoding="utf-8")
        print(f"{LIST.name}: {len(text.splitlines())} lines")
    elif not LIST.exists() or LIST.read_text(encoding="utf-8") != text:
        print(f"error: {LIST.name} is out of date; run python -m experiments.public_api", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_bool("check", False, "Only compare: exit status 1 if the list is out of date.")
    app.run(main)
