"""Wrong configurations and command lines: used as they stand, or refused in one sentence."""

import math

import pytest

from configs import (
    digits_admm,
    evolve_amounts,
    evolve_pruning,
    lenet300_sparse,
    resnet_oneshot,
    resnet_shrink,
    storage_study,
)
from experiments import (
    cuts,
    evolve_amounts_config,
    evolve_config,
    fault_configs,
    oneshot_config,
    schema,
    sparse_config,
    study_config,
)
from experiments.fault_configs import fits
from experiments.schema import Fit

pytestmark = pytest.mark.faults


def lawful(tally, tried):
    assert tally.tried == tried
    assert not tally.flaws
    assert tally.refused > tried / 4
    assert set(tally.errors) <= {"ValueError"}


def test_one_value_changed():
    lawful(fault_configs.values(300), 300)


def test_one_override():
    lawful(fault_configs.overrides(200), 200)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: setattr(c, "sead", 1), "config.sead is unknown; config has the fields dataset, model, seed"),
        (lambda c: setattr(c.pretrain, "epoch", 1), "config.pretrain.epoch is unknown"),
        (lambda c: vars(c.stages[0]).pop("keep"), r"config.stages\[0\].keep is missing"),
        (lambda c: c.stages[0].keep.update({1: 2}), r"the key 1 of config.stages\[0\].keep is 1; .* type str"),
        (lambda c: setattr(c, "seed", 2**31), r"config.seed is 2147483648; integers must be below 2,147,483,648"),
        (lambda c: setattr(c, "seed", 10**9999), "config.seed is an integer of 33216 bits"),
        (lambda c: setattr(c.pretrain, "epochs", 10**9999), "config.pretrain.epochs is an integer of"),
        (lambda c: setattr(c.pretrain, "epochs", 1e308), "config.pretrain.epochs is 1e.308; .* finite"),
        (lambda c: setattr(c.pretrain, "weight_decay", math.nan), "config.pretrain.weight_decay is nan"),
        (lambda c: setattr(c, "model", "a" * 5000), "config.model is a text of 5,000 characters"),
    ],
)
def test_what_used_to_be_let_through(change, message):
    config = digits_admm.get_config("tiny")
    change(config)
    with pytest.raises(ValueError, match=message):
        schema.check(config)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("removed", "0.5", "removed is a str"),
        ("n_of_m", ((4, 2),), r"n_of_m\[0\] is \(4, 2\)"),
        ("n_of_m", ((0, 0),), r"n_of_m\[0\] is \(0, 0\)"),
        ("seed", -1, "seed is -1"),
        ("options", {"layers": object()}, "layers'. is a object; use a number"),
        ("options", {1: 2}, "the key 1 of config.options"),
    ],
)
def test_oneshot_checks_types_too(name, value, message):
    config = resnet_oneshot.get_config("tiny")
    setattr(config, name, value)
    with pytest.raises(ValueError, match=message):
        oneshot_config.check(config)


@pytest.mark.parametrize(
    ("file", "check", "name", "value"),
    [
        (evolve_pruning, evolve_config.check, "population", 2**30),
        (evolve_pruning, evolve_config.check, "length", 2**30),
        (evolve_amounts, evolve_amounts_config.check, "population", 2**30),
        (storage_study, study_config.check, "widths", (2**30,)),
        (storage_study, study_config.check, "latency_batch", 2**30),
        (resnet_shrink, cuts.check, "latency_batch", 2**30),
        (resnet_oneshot, oneshot_config.check, "evaluation", 2**30),
        (lenet300_sparse, sparse_config.check, "round_ratio", 1.0000001),
        (digits_admm, schema.check, "pretrain", Fit(epochs=1e12)),
    ],
)
def test_sizes_that_fit_in_no_memory_and_rounds_that_never_end(file, check, name, value):
    config = file.get_config("tiny")
    setattr(config, name, value)
    with pytest.raises(ValueError, match=rf"config.{name}.* must be at (most|least)"):
        check(config)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (None, str, False),
        ("a", str | None, True),
        ([1, True], tuple[int, ...], False),
        ({"a": 1}, dict[str, int], True),
        ({1: 1}, dict[str, int], False),
        (math.inf, float, False),
    ],
)
def test_fits(value, hint, expected):
    assert fits(value, hint) == expected
