"""A search of a tiny network end to end: records, resuming, what is chosen by what, and bad input."""

import dataclasses
import json

import numpy as np
import pytest

from compressjax.search import expressions
from configs import evolve_pruning as configs
from experiments import evolve, evolve_config, evolve_fitness, evolve_report, evolve_search
from experiments.evolve_config import EvolveConfig
from experiments.trials import Trials, keep_key
from experiments.workdir import METRICS, Workdir, read_metrics


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config, workdir = configs.get_config("tiny"), tmp_path_factory.mktemp("run")
    return config, workdir, evolve.run(config, workdir, progress=False)


def candidates(workdir):
    return [json.loads(line) for line in (workdir / "candidates.jsonl").read_text().splitlines()]


def test_every_candidate_is_recorded_and_its_formula_reads_back(finished):
    config, workdir, _ = finished
    found = candidates(workdir)
    generations = config.generations + 1
    assert len(found) == 2 * config.population * generations
    for one in found:
        assert int(expressions.lengths(expressions.parse(one["formula"]).tokens)) == one["tokens"] <= config.length
    seeds = [one["formula"] for one in found[: len(expressions.SEEDS)]]
    assert seeds == list(expressions.SEEDS.values())


def test_fitness_is_what_the_trials_say_and_equal_effects_share_one(finished):
    config, workdir, report = finished
    trials = {(r["task"], r["keep"], r["seed"]): r for r in read_metrics(workdir)}
    assert len(trials) == report["trials"]
    longer = [key for key in trials if key[1].endswith("x2")]
    assert longer
    assert all(seed == config.seed for _, _, seed in longer)
    for one in candidates(workdir):
        if one["fitness"] is None:
            assert not one["keeps"]
            continue
        after = [trials[task, keep, config.seed]["after"] for task, keep in one["keeps"].items()]
        assert one["fitness"] == pytest.approx(1 - evolve_search.geometric_mean(after))
        assert "test" not in trials["digits", one["keeps"]["digits"], config.seed]


def test_the_best_of_a_generation_never_falls_below_the_seeds(finished):
    _, workdir, report = finished
    found = [one for one in candidates(workdir) if one["search"] == "evolved" and one["fitness"] is not None]
    seeds = min(one["fitness"] for one in found if one["generation"] == 0)
    assert min(one["fitness"] for one in found) <= seeds
    rows = report["tasks"][0]["rows"]
    assert {row["name"] for row in rows} == {*expressions.SEEDS, "evolved", "random_formulas", "f2", "random"}
    assert all(row["test"]["n"] == 2 for row in rows)


def test_the_finalist_with_the_best_validation_accuracy_is_chosen(finished):
    _, _, report = finished
    for name, finalists in report["finalists"].items():
        best = max(finalists, key=lambda one: one["validation"])
        assert report["chosen"][name] == best["formula"]
    assert (finished[1] / "report.html").read_text().count("<svg") + (finished[1] / "report.html").read_text().count(
        "data:image"
    ) >= 2


def test_the_fitness_is_checked_on_seeds_and_finalists(finished):
    config, workdir, report = finished
    found = report["fitness"]
    texts = [row["formula"] for row in found["rows"]]
    assert texts[: len(expressions.SEEDS)] == list(expressions.SEEDS.values())
    assert report["chosen"]["evolved"] in texts
    by_formula = {one["formula"]: one for one in candidates(workdir) if one["search"] == "evolved"}
    for row in found["rows"]:
        assert row["search"] == pytest.approx(1 - by_formula[row["formula"]]["fitness"])
        assert len(row["repeats"]) == config.repeats
    spread = [np.var(row["repeats"], ddof=1) for row in found["rows"]]
    assert found["noise"] == pytest.approx(np.sqrt(np.mean(spread)))
    assert all(-1 <= tau <= 1 for tau in found["tau"].values())
    text = evolve_report.headline(report)
    assert "Noise of one evaluation" in text
    assert "with longer retraining" in text
    assert evolve_fitness.agreement([1, 1], [1, 2]) is None
    assert evolve_fitness.pooled([[1.0], [2.0]]) is None


def test_a_killed_run_ends_with_the_same_report_and_computes_nothing_twice(finished, tmp_path):
    config, workdir, report = finished
    lines = (workdir / METRICS).read_text().splitlines(keepends=True)
    with Workdir(tmp_path, evolve_config_dict(config)):
        pass
    half = lines[: len(lines) // 2]
    (tmp_path / METRICS).write_text("".join(half) + lines[len(half)][:20])  # killed in the middle of a line
    again = evolve.run(config, tmp_path, progress=False)
    assert timeless(again) == timeless(report)
    assert [timeless(json.loads(x)) for x in (tmp_path / METRICS).read_text().splitlines()] == [
        timeless(json.loads(x)) for x in lines
    ]


def evolve_config_dict(config):
    from experiments.schema import to_dict

    return to_dict(config)


def timeless(found):
    return {key: value for key, value in found.items() if key not in ("seconds", "crc")}


def test_the_verdict_compares_with_the_best_and_the_median_seed():
    def task(role, evolved):
        rows = [{"name": name, "test": {"mean": i / 8}} for i, name in enumerate(expressions.SEEDS, 1)]
        return {"name": role, "role": role, "rows": [*rows, {"name": "evolved", "test": {"mean": evolved}}]}

    found = evolve_report.verdict([task("training", 7 / 8), task("transfer", 4 / 8)])
    assert found["training"]["best_seed"] == "medoid"
    assert found["training"]["holds"]
    assert found["transfer"][0]["median_seed"] == 4 / 8
    assert not found["transfer"][0]["holds"]  # above the median, not level with it


@pytest.mark.parametrize("score", [np.array([1.0, np.nan, 0.0]), np.array([2.0, 2.0, 2.0]), np.full(3, -np.inf)])
def test_scores_that_say_nothing_fail(score):
    class Task:
        widths = {"g0": 2}  # noqa: RUF012

    assert evolve_search.choose({"g0": score}, Task()) is None


def test_keep_sets_have_one_name_each(tmp_path):
    one, other = {"a": np.array([True, False])}, {"a": np.array([False, True])}
    assert keep_key(one) != keep_key(other)
    assert keep_key({**one, "b": np.array([True])}) != keep_key(one)
    with Workdir(tmp_path, {}) as directory:
        assert len(Trials(directory, {})) == 0


def test_time_counts_for_trials_that_are_made_twice(tmp_path):
    trial = {"task": "a", "keep": "k", "seed": 0, "before": 0.5, "after": 0.75, "seconds": 2.0}
    with Workdir(tmp_path, {}) as directory:
        directory.record(trial)
        directory.record({**trial, "test_before": 0.5, "test": 0.75, "seconds": 3.0})
        trials = Trials(directory, {})
    assert (len(trials), trials.seconds) == (1, 5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ()}, "config.tasks is empty"),
        ({"population": 6}, r"config.population is 6; it must be a finite number of at least 7"),
        ({"parents": 99}, "config.parents is 99, more than the population of 8"),
        ({"compared": ("luck",)}, r"config.compared\[0\] is 'luck'; choose one of"),
        ({"repeats": 0}, "config.repeats is 0"),
    ],
)
def test_bad_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        evolve_config.check(dataclasses.replace(configs.get_config("tiny"), **change))


def test_a_task_without_a_name_or_widths_is_refused():
    config = configs.get_config("tiny")
    config.tasks[0].kept = {}
    with pytest.raises(ValueError, match="kept is empty"):
        evolve_config.check(config)
    config.tasks[0].name = ""
    with pytest.raises(ValueError, match="name is empty"):
        evolve_config.check(config)
    with pytest.raises(ValueError, match="takes a EvolveConfig"):
        evolve_config.check(object())


def test_all_profiles_are_valid():
    for profile in ("full", "lenet5", "accelerator"):
        found = configs.get_config(profile)
        assert isinstance(found, EvolveConfig)
        evolve_config.check(found)
    with pytest.raises(ValueError, match="Unknown profile"):
        configs.get_config("huge")
