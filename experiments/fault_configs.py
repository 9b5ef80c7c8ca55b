"""Configurations and command lines that are wrong in random ways: each is used as it stands or refused in a sentence.

Part of `experiments.faults`.  One case changes one thing of one profile of one file in ``configs/``: a value's type or
range, a name, a length, a key, a whole part; or it hands the flags an override that may name nothing.
"""

import contextlib
import copy
import dataclasses
import functools
import importlib
import io
import json
import math
import random
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.fault_tally import Tally, judged
from experiments.workdir import differences

ROOT = Path(__file__).parents[1]
PROFILES = ("full", "tiny")
ODD: tuple[Any, ...] = (None, "text", b"bytes", 1.5, True, 7, 2 + 3j, [], {}, (), {"a": 1}, ("a",), object(), len)
NUMBERS: tuple[Any, ...] = (math.nan, math.inf, -math.inf, -1, 0, 1e308, 1e-320, -0.5, 10**30, -(10**30), 2**31, 2**64)
WORDS = ("", "magic", "digits", "lenet5", "\0", "é\n", "a" * 10_000, "../..", "*", "[", "%s", "None", "nan")
TEXTS = (*WORDS, "1", "-1", "1e999", "true", "[1,", "(1,2)", "{}", "{'a': 1}", "1,2", "0x10", "1_000", "9" * 400, "'")


def checks() -> dict[type, Callable[[Any], None]]:
    """Kind of configuration -> what verifies it, for every program that takes one."""
    from experiments import (
        cdc_config,
        curves,
        cuts,
        evolve_amounts_config,
        evolve_config,
        oneshot_config,
        schema,
        schemes,
        sparse_config,
        study_config,
        sweep_config,
    )

    return {
        schema.Config: schema.check,
        cuts.ShrinkConfig: cuts.check,
        schemes.LowPrecisionConfig: schemes.check,
        curves.CurvesConfig: curves.check,
        sparse_config.SparseConfig: sparse_config.check,
        oneshot_config.OneshotConfig: oneshot_config.check,
        study_config.StudyConfig: study_config.check,
        cdc_config.CdcConfig: cdc_config.check,
        evolve_config.EvolveConfig: evolve_config.check,
        evolve_amounts_config.AmountsConfig: evolve_amounts_config.check,
        sweep_config.Sweep: sweep_config.check,
    }


def files() -> list[Path]:
    """The configuration files."""
    return sorted(file for file in (ROOT / "configs").glob("*.py") if file.stem not in ("__init__", "common", "tasks"))


def values(cases: int, seed: int = 0) -> Tally:
    """Changes one thing of a configuration, `cases` times, and verifies it as its program does.

    Args:
      cases: How many.
      seed: Of what is changed.

    Returns:
      What came of it.  A value of another type than the field's, a number that is not finite, and a name that no field
      has must be refused; whatever is accepted must come back from JSON unchanged.
    """
    tally, draw = Tally("configuration, one value changed"), random.Random(seed)
    known = checks()
    originals = [get(profile) for get in map(_getter, files()) for profile in PROFILES]
    for _ in range(cases):
        original = draw.choice(originals)
        config = copy.deepcopy(original)
        what, hopeless = change(config, draw)
        judged(tally, what, functools.partial(verify, config, known[type(original)]), hopeless)
    return tally


def verify(config: Any, check: Callable[[Any], None]) -> None:
    """What a program does with a configuration before it trains anything: the check, and ``config.json``."""
    from experiments.schema import to_dict

    check(config)
    plain = to_dict(config)
    changed = differences(json.loads(json.dumps(plain, allow_nan=False)), plain)
    if changed:
        raise AssertionError(f"{sorted(changed)[0]} does not come back from config.json")


def _getter(file: Path) -> Callable[[str], Any]:
    return importlib.import_module(f"configs.{file.stem}").get_config


@dataclasses.dataclass(frozen=True)
class Place:
    """A value in a configuration: the part that holds it, its name or index there, and its annotation."""

    holder: Any
    name: Any
    hint: Any

    @property
    def value(self) -> Any:
        """What is there."""
        return getattr(self.holder, self.name) if dataclasses.is_dataclass(self.holder) else self.holder[self.name]

    def put(self, value: Any) -> None:
        """Replaces it."""
        if dataclasses.is_dataclass(self.holder):
            object.__setattr__(self.holder, self.name, value)  # a frozen one as well
        else:
            self.holder[self.name] = value


def places(part: Any) -> Iterator[Place]:
    """All values of a dataclass, down to the leaves.  Tuples become lists, so that their items can be replaced."""
    for name, hint in typing.get_type_hints(type(part)).items():
        place = Place(part, name, hint)
        if isinstance(place.value, tuple):
            place.put(list(place.value))
        yield place
        yield from _inner(place.value, hint)


def _inner(value: Any, hint: Any) -> Iterator[Place]:
    if dataclasses.is_dataclass(value):
        yield from places(value)
    elif isinstance(value, (list, dict)) and typing.get_args(hint):
        inner = typing.get_args(hint)[-1 if isinstance(value, dict) else 0]
        for name in value if isinstance(value, dict) else range(len(value)):
            if isinstance(value[name], tuple):
                value[name] = list(value[name])
            yield Place(value, name, inner)
            yield from _inner(value[name], inner)


def change(config: Any, draw: random.Random) -> tuple[str, bool]:
    """Changes one thing of a configuration in place: what, and whether it must be refused."""
    found = list(places(config))
    kind = draw.choice(["type", "number", "word", "unknown", "absent", "key", "length"])
    place = draw.choice(found)
    what = f"{kind} of {type(place.holder).__name__}.{place.name}"
    if kind == "type":
        odd = draw.choice(ODD)
        place.put(odd)
        return f"{what}: {odd!r}", not fits(odd, place.hint)
    if kind == "number":
        place = draw.choice([p for p in found if p.hint in (int, float)])
        number = draw.choice(NUMBERS)
        place.put(number)
        return f"{type(place.holder).__name__}.{place.name}: {number!r}", not fits(number, place.hint)
    if kind == "word":
        place = draw.choice([p for p in found if isinstance(p.value, str)] or found)
        word = draw.choice(WORDS)
        place.put(word)
        return f"{what}: {word[:20]!r}", not fits(word, place.hint)
    parts = [config, *(p.value for p in found if dataclasses.is_dataclass(p.value))]
    if kind == "unknown":
        object.__setattr__(draw.choice(parts), draw.choice(["sead", "Seed", "_seed", "epoch"]), 1)
        return what, True
    if kind == "absent":
        part = draw.choice(parts)
        name = draw.choice([field.name for field in dataclasses.fields(part)])
        vars(part).pop(name)
        return f"absent {type(part).__name__}.{name}", False
    groups = [p for p in found if isinstance(p.value, dict if kind == "key" else list)]
    if not groups:
        config.__dict__["sead"] = 1
        return "unknown", True
    place = draw.choice(groups)
    if kind == "key":
        key = draw.choice([1, None, b"x", ("a",), "", "no/such", "\0", "[", "a" * 5000])
        place.value[key] = next(iter(place.value.values()), 1)
        return f"key {key!r:.20} in {place.name}", not isinstance(key, str)
    place.put(draw.choice([[], place.value * 2, place.value[:1]]))
    return f"length of {place.name}", False


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; floats must be finite and may be written as integers.

    >>> fits(1, float), fits(True, int), fits([1, 2], tuple[int, ...]), fits(math.nan, float)
    (True, False, True, False)
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is tuple:
        return isinstance(value, (tuple, list)) and all(fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(
            fits(key, inner[0]) and fits(item, inner[1]) for key, item in value.items()
        )
    if origin is types.UnionType:
        return any(fits(value, option) for option in inner)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf
    return isinstance(value, hint) and isinstance(value, bool) == (hint is bool)


def overrides(cases: int, seed: int = 0) -> Tally:
    """Hands the flags an override, `cases` times: status 2 and a sentence, or a configuration that is verified.

    Args:
      cases: How many.
      seed: Of the overrides.

    Returns:
      What came of it.
    """
    tally, draw = Tally("command line, one override"), random.Random(seed)
    known = checks()
    trees = {file: list(names(_getter(file)("tiny"))) for file in files()}
    for _ in range(cases):
        file = draw.choice(files())
        name = draw.choice(trees[file])
        name = draw.choice([name, name, name, name + draw.choice(["x", ".", "[0]", "[99]", "['a']", "[", ".a.b"])])
        argument = f"--config.{name}{draw.choice(['=', '=', '=', ''])}{draw.choice(TEXTS)}"
        judged(tally, f"{file.stem} {argument[:60]}", functools.partial(_parsed, file, argument, known))
    return tally


def names(part: Any, at: str = "") -> Iterator[str]:
    """Names of all values of a configuration, as overrides spell them."""
    for field in dataclasses.fields(part):
        value, name = getattr(part, field.name), f"{at}{field.name}"
        yield name
        if dataclasses.is_dataclass(value):
            yield from names(value, f"{name}.")
        elif isinstance(value, tuple):
            for i, item in enumerate(value):
                yield f"{name}[{i}]"
                if dataclasses.is_dataclass(item):
                    yield from names(item, f"{name}[{i}].")
        elif isinstance(value, dict):
            yield from (f"{name}[{key!r}]" for key in value)


def _parsed(file: Path, argument: str, known: Mapping[type, Callable[[Any], None]]) -> None:
    from absl import flags
    from ml_collections import config_flags

    from experiments.launch import parse

    argv = ["program", f"--config={file}:tiny", argument]
    mine = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=mine, sys_argv=argv)
    with contextlib.redirect_stderr(io.StringIO()) as said, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of how ml_collections loads a file
        try:
            parse(argv, mine)
        except SystemExit as ended:
            if ended.code != 2 or not said.getvalue().startswith("error: "):
                raise AssertionError(f"status {ended.code} and {said.getvalue()!r}") from ended
            raise ValueError(said.getvalue().splitlines()[0]) from ended
    config = mine.config
    verify(config, known[type(config)] if type(config) in known else next(iter(known.values())))
