"""The list of everything public is up to date, and would show a change."""

import dataclasses
import subprocess
import sys
from typing import Protocol

import pytest

from experiments import public_api


def test_the_public_api_is_as_listed() -> None:
    stated = public_api.LIST.read_text("utf-8").splitlines()
    found = list(public_api.lines())
    gone, new = sorted(set(stated) - set(found)), sorted(set(found) - set(stated))
    message = "The public API changed; if that is meant, run python -m experiments.public_api."
    assert stated == found, "\n".join([message, *(f"- {line}" for line in gone), *(f"+ {line}" for line in new)])


def test_names_parameters_and_simple_defaults_are_seen() -> None:
    @dataclasses.dataclass
    class Kind:
        size: int
        scale: float = 1.0

        @property
        def area(self) -> int:
            return self.size

        @classmethod
        def of(cls, size: int) -> "Kind":
            return cls(size)

        def grow(self, by: int = 1, *, how: object = print) -> int:
            return self.size + by

        def _hidden(self) -> None: ...

    Kind.__module__ = "compressjax.masks"
    assert list(public_api.described("masks.Kind", Kind)) == [
        "masks.Kind(size, scale=1.0)",
        "masks.Kind.area",
        "masks.Kind.grow(self, by=1, *, how=...)",
        "masks.Kind.of(size)",
    ]


def test_constants_and_protocols_have_a_name_only() -> None:
    class Shape(Protocol):
        sides: int

    assert list(public_api.described("masks.LIMIT", 3)) == ["masks.LIMIT"]
    assert list(public_api.described("masks.Shape", Shape)) == ["masks.Shape"]


def test_the_check_ends_with_status_1_and_one_sentence(tmp_path, monkeypatch, capsys) -> None:
    class Flags:
        check = True

    monkeypatch.setattr(public_api, "LIST", tmp_path / "public_api.txt")
    monkeypatch.setattr(public_api, "lines", lambda: iter(["a(b)"]))
    monkeypatch.setattr(public_api.flags, "FLAGS", Flags)
    (tmp_path / "public_api.txt").write_text("a(c)\n")
    with pytest.raises(SystemExit) as ended:
        public_api.main(["public_api"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
    Flags.check = False
    public_api.main(["public_api"])
    assert (tmp_path / "public_api.txt").read_text() == "a(b)\n"
    Flags.check = True
    public_api.main(["public_api"])


IMPORTS = """
import importlib, socket, sys

def refuse(*arguments):
    raise AssertionError("the library opened a connection on import")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import compressjax
print(sorted({"absl", "flax", "jax"} & set(sys.modules)))
for room in compressjax.__all__:
    importlib.import_module(f"compressjax.{room}")
from absl import flags
defined = flags.FLAGS.flags_by_module_dict()
print([module for module in defined if module.startswith(("compressjax", "pallas_kernels"))])
"""


def test_importing_opens_no_connection_and_defines_no_flag() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
