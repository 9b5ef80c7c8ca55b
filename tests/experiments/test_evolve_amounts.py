"""A search of per-layer amounts on a tiny network end to end, the budget, resuming, and bad input."""

import dataclasses

import pytest

from configs import evolve_amounts as configs
from experiments import evolve_amounts, evolve_amounts_config
from experiments.task_config import Task
from experiments.workdir import read_report


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config, workdir = configs.get_config("tiny"), tmp_path_factory.mktemp("run")
    return config, workdir, evolve_amounts.run(config, workdir, progress=False)


def test_every_strategy_keeps_to_the_budget_with_the_same_number_of_candidates(finished):
    config, workdir, report = finished
    assert [row["name"] for row in report["rows"]] == ["uniform", "cma_es", "greedy", "random"]
    for row in report["rows"]:
        assert all(0 < one["macs"] <= config.macs for one in row["searches"])
        assert len(row["searches"]) == row["test"]["n"] == config.repeats
    for name in config.strategies:
        for seed in range(config.repeats):
            records = (workdir / f"{name}-{seed}.jsonl").read_text().splitlines()
            assert len(records) == config.population * config.generations


def test_a_search_finds_no_less_than_it_began_with(finished):
    uniform, _, greedy, _ = finished[2]["rows"]
    assert all(one["accuracy"] >= uniform["searches"][0]["accuracy"] for one in greedy["searches"])
    for row in finished[2]["rows"][1:]:
        for one in row["searches"]:
            assert one["curve"] == sorted(one["curve"])
            assert one["curve"][-1] == pytest.approx(one["accuracy"])


def test_a_second_run_searches_nothing_again(finished, monkeypatch):
    config, workdir, report = finished
    (workdir / "report.json").unlink()

    def never(*_):
        raise AssertionError("searched again")

    monkeypatch.setattr(evolve_amounts.Arena, "driver", never)
    assert evolve_amounts.run(config, workdir, progress=False) == report
    assert read_report(workdir) == report
    assert "data:image" in (workdir / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"macs": 0.0}, "config.macs is 0.0; it is a share"),
        ({"strategies": ()}, "config.strategies is empty"),
        ({"strategies": ("random", "random")}, r"config.strategies\[1\] is 'random' again"),
        ({"score": "luck"}, "config.score is 'luck'"),
        ({"population": 3}, "config.population is 3"),
        ({"task": Task(name="a", kept={"x": 1})}, "config.task.kept has no use"),
    ],
)
def test_bad_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        evolve_amounts_config.check(dataclasses.replace(configs.get_config("tiny"), **change))


def test_all_profiles_are_valid():
    for profile in ("full", "resnet20"):
        evolve_amounts_config.check(configs.get_config(profile))
    with pytest.raises(ValueError, match="Unknown profile"):
        configs.get_config("huge")
