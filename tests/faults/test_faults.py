"""The program that breaks things, and how it counts."""

import functools
import json

import pytest

from experiments import faults
from experiments.fault_tally import Tally, judged

pytestmark = pytest.mark.faults


def raising(error):
    raise error


@pytest.mark.parametrize(
    ("error", "refused", "silent", "flaws"),
    [
        (ValueError("the width is 3; use 4."), 1, 0, 0),
        (ValueError("no"), 0, 0, 1),
        (ValueError("two\nlines of text"), 0, 0, 1),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid start"), 0, 0, 1),
        (KeyError("width"), 0, 0, 1),
        (AssertionError("another result"), 0, 1, 1),
    ],
)
def test_only_a_sentence_is_a_refusal(error, refused, silent, flaws):
    tally = Tally("test")
    judged(tally, "case", functools.partial(raising, error))
    assert (tally.tried, tally.right, tally.refused, tally.silent) == (1, 0, refused, silent)
    assert len(tally.flaws) == flaws


def test_what_must_be_refused_and_is_not_is_silent():
    tally = Tally("test")
    judged(tally, "case", lambda: None, hopeless=True)
    judged(tally, "case", lambda: None)
    assert (tally.right, tally.silent, tally.flaws) == (1, 1, ["case: accepted"])


@pytest.mark.parametrize("part", ["values", "writers"])
def test_a_part_gives_records(part, tmp_path):
    (record,) = faults.run(part, tmp_path, cases=20, kills=1)
    assert record["tried"] >= 8
    assert not record["flaws"]
    assert json.loads(json.dumps(record)) == record
    assert record["fault"] in faults.table([record])


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(ValueError, match="names 'weather'; choose from values, overrides"):
        faults.run("weather", tmp_path, cases=1, kills=1)
