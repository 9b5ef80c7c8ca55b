"""Sweeps in this process and as command lines: every trial once, whatever happened before."""

import doctest
import importlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import (
    schema,
    sweep,
    sweep_config,
    sweep_engines,
    sweep_ray,
    sweep_records,
    sweep_report,
    sweep_streams,
    sweep_trial,
)
from experiments.sweep_config import Between, Choice, Halving, Objective, Resources, Search, Sweep, Trial, Whole, grid
from experiments.workdir import Workdir, read_metrics
from tests.experiments.slow_sweep import CONFIG, COST, LOSS, PROGRAM, get_config
from tests.experiments.test_report import Balance
from tests.experiments.waiting import until

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)  # configuration files are named from there


def run(config, workdir, **options):
    return sweep.run(config, workdir, progress=False, **options)


def table(workdir):
    return [json.loads(line) for line in (workdir / "trials.jsonl").read_text().splitlines()]


def ends(workdir):
    return sorted(path.read_text().count("end") for path in workdir.glob("trials/*/ends"))


def test_every_trial_is_run_once_and_gives_one_row(tmp_path):
    config = get_config()
    config.trials += config.trials[:2]
    report = run(config, tmp_path)
    assert report["status"] == {"finished": 4}
    rows = table(tmp_path)
    assert [row["overrides"]["seed"] for row in rows] == [0, 1, 2, 3]
    assert all(row["results"] == {"loss": 1.0, "cost": 1.0} and row["attempts"] == 1 for row in rows)
    assert run(config, tmp_path) == report
    assert ends(tmp_path) == [1, 1, 1, 1]


def test_a_longer_list_runs_what_is_new(tmp_path):
    config = get_config()
    run(replace(config, trials=config.trials[:1]), tmp_path)
    run(config, tmp_path)
    assert [row["attempts"] for row in table(tmp_path)] == [1, 1, 1, 1]


def test_a_failure_is_a_row_with_its_reason_and_is_repeated_on_request_only(tmp_path):
    trials = grid(PROGRAM, CONFIG, {"fail": ("the rule is broken", "")})
    config = Sweep(trials=trials, objectives=(LOSS,))
    for _ in range(2):
        report = run(config, tmp_path)
        assert report["status"] == {"failed": 1, "finished": 1}
        assert [(row["reason"], row["attempts"]) for row in table(tmp_path)] == [("the rule is broken", 1), ("", 1)]
    run(config, tmp_path, retry_failed=True)
    assert [row["attempts"] for row in table(tmp_path)] == [2, 1]
    assert "the rule is broken" in (tmp_path / "report.html").read_text()


def test_a_search_repeats_a_failure_once_however_often_it_proposes_it(tmp_path):
    ranges = {"fail": Choice(("no", "never")), "steps": Whole(1, 2)}
    search = Search(PROGRAM, CONFIG, ranges, strategy="tpe", population=4, generations=3)
    config = Sweep(search=search, objectives=(LOSS,))
    for attempts in (1, 2):
        run(config, tmp_path, retry_failed=attempts > 1)
        assert {row["attempts"] for row in table(tmp_path)} == {attempts}


def test_an_edited_configuration_file_is_refused_before_anything_starts(tmp_path):
    file, text = tmp_path / "edited.py", Path(CONFIG).read_text()
    trials = [Trial(PROGRAM, f"{file}:", {"seed": seed}) for seed in range(3)]
    file.write_text(text)
    run(Sweep(trials=(trials[0],)), tmp_path / "run")
    with Workdir(sweep_records.directory_of(tmp_path / "run", trials[1]), {"steps": 2}) as directory:
        directory.record({"step": 0})  # not finished
    file.write_text(text.replace("gate=gate", "gate=gate, steps=2"))
    for begun in trials[:2]:
        with pytest.raises(ValueError, match=rf"{begun.id} belongs to a run with another configuration \(.*differ\)"):
            run(Sweep(trials=(trials[2], begun)), tmp_path / "run")
    assert not sweep_records.directory_of(tmp_path / "run", trials[2]).exists()
    assert run(Sweep(trials=(trials[2],)), tmp_path / "run")["status"] == {"finished": 2}


def test_a_trial_that_someone_else_is_writing_is_left_alone_and_run_later(tmp_path):
    config = get_config()
    where = sweep_records.directory_of(tmp_path, config.trials[0])
    where.mkdir(parents=True)
    with Workdir(where, {}):
        run(config, tmp_path)
        assert [row["status"] for row in table(tmp_path)] == ["lost", "finished", "finished", "finished"]
    assert "another process has been writing" in (tmp_path / "report.html").read_text()
    assert run(config, tmp_path)["status"] == {"finished": 4}


@pytest.mark.parametrize("damage", ["0.25", "[" * 100_000, "[1]", "\xff"])
def test_a_damaged_report_is_a_failure_with_the_way_out(damage, tmp_path):
    config = get_config()
    where = sweep_records.directory_of(tmp_path, config.trials[0])
    with Workdir(where, schema.to_dict(sweep_engines.resolve(config.trials[0]))) as directory:
        directory.write_report({"loss": 0.75})
    report = (where / "report.json").read_text()
    (where / "report.json").write_text(report.replace("0.75", damage) if damage == "0.25" else damage)
    run(config, tmp_path)
    row = table(tmp_path)[0]
    assert (row["status"], row["results"]["loss"]) == ("failed", None)
    assert "damaged; remove it to run the trial again" in row["reason"]
    (where / "report.json").unlink()
    assert run(config, tmp_path)["status"] == {"finished": 4}


def test_the_table_is_made_again_from_the_directories(tmp_path):
    run(get_config(), tmp_path)
    before = table(tmp_path)
    for name in ("trials.jsonl", "report.json", "report.html"):
        (tmp_path / name).unlink()
    done = program("experiments.sweep_report", f"--workdir={tmp_path}")
    assert "4 trials: 4 finished" in done.stdout
    assert sorted(table(tmp_path), key=str) == sorted(before, key=str)


def test_the_page_is_made_while_the_sweep_writes_its_table(tmp_path):
    run(get_config(), tmp_path)
    beside = tmp_path / ".trials.jsonl.tmp"
    beside.write_bytes(b"half of the table")  # and the sweep is to rename it next
    program("experiments.sweep_report", f"--workdir={tmp_path}")
    assert beside.read_bytes() == b"half of the table"


def program(module, *arguments):
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)


def test_printed_commands_run_the_trials(tmp_path):
    flags = ["--config=tests/experiments/slow_sweep.py", f"--workdir={tmp_path}", "--engine=print"]
    lines = program("experiments.sweep", *flags).stdout.splitlines()
    assert len(lines) == 4
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(lines[2], shell=True, cwd=ROOT, env=environment, check=True)
    again = program("experiments.sweep", *flags)
    assert again.stdout.splitlines() == [*lines[:2], lines[3]]
    assert "4 trials: 1 finished, 3 prepared" in again.stderr


def test_a_trial_dies_with_the_process_that_waits_for_it(tmp_path):
    trial = Trial(PROGRAM, f"{CONFIG}:{tmp_path}", {})
    where = tmp_path / trial.id
    sweep_trial.prepare(where, trial)
    code = (
        "import os; from experiments.sweep_trial import *; "
        f"attempt(Job(read_trial(Path({str(where)!r})), {str(where)!r}, {str(ROOT)!r}, {{}}))"
    )
    waiting = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    until(lambda: read_metrics(where), waiting)
    waiting.send_signal(signal.SIGKILL)
    waiting.wait()
    sweep_trial.await_writer(where, 60.0)  # raises if the program lives on
    assert sweep_trial.state(where) == ("unfinished", "")
    (tmp_path / "open").touch()
    sweep_trial.attempt(sweep_trial.Job(trial, str(where), str(ROOT), {}))
    assert [record["step"] for record in read_metrics(where)] == [0, 1, 2]
    assert sweep_trial.state(where) == ("finished", "")


def test_a_trial_that_is_asked_to_stop_is_lost_and_goes_on(tmp_path):
    trial = Trial(PROGRAM, f"{CONFIG}:{tmp_path}", {})
    where = tmp_path / trial.id
    sweep_trial.prepare(where, trial)
    job, asked = sweep_trial.Job(trial, str(where), str(ROOT), {}), []

    def terminate():
        if not asked and len(read_metrics(where)) == 1:
            asked.append(int((where / "pids").read_text()))
            os.kill(asked[0], signal.SIGTERM)

    with pytest.raises(sweep_trial.LostError, match="asked to stop by SIGTERM"):
        sweep_trial.attempt(job, terminate)
    assert "step 1 is kept" in (where / "trial.log").read_text()
    assert sweep_trial.state(where) == ("unfinished", "")
    (tmp_path / "open").touch()
    sweep_trial.attempt(job)
    assert [record["step"] for record in read_metrics(where)] == [0, 1, 2]
    assert sweep_trial.state(where) == ("finished", "")


def test_a_program_that_fails_in_its_process_leaves_its_sentence(tmp_path):
    trial = Trial(PROGRAM, CONFIG, {"fail": "no such rule"})
    sweep_trial.attempt(sweep_trial.Job(trial, str(tmp_path), str(ROOT), {}))
    assert sweep_trial.state(tmp_path) == ("failed", "no such rule")


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (Trial(PROGRAM, CONFIG, {"sead": 1}), "sead"),
        (Trial(PROGRAM, CONFIG, {"seed": "one"}), "cannot be read"),
        (Trial(PROGRAM, "configs/nope.py"), "nope.py"),
        (Trial("nope", CONFIG), "no program 'experiments.nope'"),
        (Trial("nope.nope", CONFIG), "no program 'nope.nope'"),
        (Trial(".nope", CONFIG), "no program '.nope'"),
    ],
)
def test_a_trial_that_cannot_be_read_stops_the_sweep_before_it_begins(trial, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(Sweep(trials=(*get_config().trials, trial)), tmp_path)
    assert not (tmp_path / "trials").exists()


TRIALS = get_config().trials
SEARCH = Search(PROGRAM, CONFIG, {"size": Between(0.1, 10.0, log=True), "seed": Whole(0, 9)}, population=4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Sweep(), "no trials and no search"),
        (Sweep(trials=TRIALS, search=SEARCH), "both trials and a search"),
        (Sweep(trials=("compress",)), "it must be a .*Trial"),
        (Sweep(trials=(Trial(PROGRAM, CONFIG, {"seed": float("nan")}),)), "seed"),
        (Sweep(trials=TRIALS, objectives=(LOSS, LOSS)), "same name"),
        (Sweep(trials=TRIALS, objectives=(Objective("loss", "loss"),)), "path is a str; it must be a tuple"),
        (Sweep(trials=TRIALS, resources=Resources(cpus=-1.0)), "resources.cpus"),
        (Sweep(trials=TRIALS, retries=-1), "retries"),
        (Sweep(trials=TRIALS, halving=Halving(reduction=1)), "reduction"),
        (Sweep(search=SEARCH, objectives=(LOSS,), halving=Halving()), "listed trials"),
        (Sweep(search=SEARCH), "needs config.objectives"),
        (Sweep(search=SEARCH, objectives=(LOSS, COST)), "choose one of NSGA2, tpe"),
        (Sweep(search=replace(SEARCH, ranges={"size": Between(0.0, 1.0, log=True)}), objectives=(LOSS,)), "low is 0.0"),
        (Sweep(search=replace(SEARCH, ranges={"kind": Choice(("a",))}), objectives=(LOSS,)), "two options"),
        (Sweep(search=replace(SEARCH, ranges={"kind": ("a", "b")}), objectives=(LOSS,)), "is a tuple; it must be"),
        (Sweep(search=replace(SEARCH, strategy="magic"), objectives=(LOSS,)), "'magic'; choose one of .*CMA_ES"),
    ],
)
def test_bad_sweeps_are_refused(config, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(config, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "slurm"}, "choose one of inline, ray, print"),
        ({"ray_address": "auto"}, "add --engine=ray"),
    ],
)
def test_bad_engines_are_refused_before_anything_is_written(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(get_config(), tmp_path / "run", **options)
    with pytest.raises(ValueError, match="cannot stop a trial early"):
        run(replace(get_config(), halving=Halving()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("strategy", ["DifferentialEvolution", "CMA_ES", "tpe"])
def test_a_search_proposes_the_same_again_and_gets_better(strategy, tmp_path):
    ranges = {"size": Between(0.1, 10.0, log=True), "kind": Choice(("a", "b")), "steps": Whole(1, 2)}
    search = Search(PROGRAM, CONFIG, ranges, strategy=strategy, population=6, generations=1)
    config = Sweep(search=search, objectives=(LOSS,))
    first = run(config, tmp_path)["best"]["loss"][0]["results"]["loss"]
    search.generations = 4
    report = run(config, tmp_path)
    assert all(row["attempts"] == 1 for row in table(tmp_path))
    assert 6 < report["trials"] <= 24
    assert report["best"]["loss"][0]["results"]["loss"] <= first


def test_two_objectives_are_searched_together_and_failures_rank_last(tmp_path):
    ranges = {"size": Between(0.1, 5.0), "fail": Choice(("", "bad luck"))}
    search = Search(PROGRAM, CONFIG, ranges, strategy="NSGA2", population=6, generations=2)
    report = run(Sweep(search=search, objectives=(LOSS, COST)), tmp_path)
    assert report["status"]["failed"] > 0
    front = [row for row in table(tmp_path) if row["id"] in report["front"]]
    assert front
    assert all(row["results"]["cost"] <= 2.0 for row in front)  # beyond 2 both get worse


def test_halved_values_are_read_from_the_records(tmp_path):
    with Workdir(tmp_path, {}) as directory:
        for step, phase in enumerate(("warm", "train/1", "train/2")):
            directory.record({"step": step, "phase": phase, "loss": None if step == 1 else 0.5 * step})
    assert sweep_ray.watched(str(tmp_path), Halving(metric="loss", phase="train")) == [1.0]


def test_the_page_shows_the_front_the_best_and_the_failures(tmp_path):
    trials = (*grid(PROGRAM, CONFIG, {"size": (1.0, 2.0, 3.0)}), Trial(PROGRAM, CONFIG, {"fail": "a < b"}))
    report = run(Sweep(trials=trials, objectives=(LOSS, COST)), tmp_path)
    assert report["front"] == sorted(trial.id for trial in trials[:2])
    page = (tmp_path / "report.html").read_text()
    Balance().feed(page)
    assert "<svg" not in page  # figures are embedded, nothing is fetched
    assert "a &lt; b" in page
    assert "Pareto front" in page
    assert "http" not in page.replace("http-equiv", "")
    assert report["best"]["loss"][0]["id"] == trials[1].id
    assert "best loss: 0 with size 2.0" in sweep_report.headline(report)


def test_ids_and_directories_follow_from_the_trial_alone(tmp_path):
    trial = Trial(PROGRAM, CONFIG, {"b": (1, 2), "a": 0.5})
    same = Trial(PROGRAM, CONFIG, {"a": 0.5, "b": (1, 2)})
    assert trial.id == same.id != Trial(PROGRAM, CONFIG, {"a": 0.5}).id
    sweep_trial.prepare(tmp_path / trial.id, trial)
    assert sweep_trial.read_trial(tmp_path / trial.id) == trial
    (tmp_path / trial.id / "trial.json").write_text("{")
    with pytest.raises(ValueError, match="remove its directory"):
        sweep_trial.read_trial(tmp_path / trial.id)


def test_random_trials_stay_in_their_ranges_and_grow_by_appending():
    ranges = {"size": Between(1e-3, 1e-1, log=True), "seed": Whole(1, 3), "kind": Choice(("a", "b"))}
    many = sweep_config.random(PROGRAM, CONFIG, ranges, 50)
    assert sweep_config.random(PROGRAM, CONFIG, ranges, 20) == many[:20]
    assert {trial.overrides["seed"] for trial in many} == {1, 2, 3}
    assert {trial.overrides["kind"] for trial in many} == {"a", "b"}
    assert sum(trial.overrides["size"] < 1e-2 for trial in many) > 15  # half of them, in logarithms
    assert all(1e-3 <= trial.overrides["size"] <= 1e-1 for trial in many)


@pytest.mark.parametrize("range_", [Between(0.0, 1.0, log=True), Between(5.0, 1.0), Whole(5, 1), Choice(())])
def test_draws_from_no_range_are_refused(range_):
    with pytest.raises(ValueError, match=r"ranges\['size'\]\S* is "):
        sweep_config.random(PROGRAM, CONFIG, {"size": range_}, 2)


def test_overrides_are_read_as_on_a_command_line():
    overrides = {"distill.weight": 0.0, "stages[1].prune.rho": 3.0, "widths": (20, 10), "control": True}
    config = sweep_engines.resolve(Trial("compress", "configs/lenet300_mnist.py:tiny", overrides))
    assert (config.dataset, config.distill.weight, config.stages[1].prune.rho) == ("digits", 0.0, 3.0)
    assert (config.widths, config.control) == ((20, 10), True)


@pytest.mark.slow
def test_a_real_program_gives_the_numbers_of_its_command_line(tmp_path):
    trial = Trial("compress", "configs/lenet300_mnist.py:tiny", {"quantize": ()})
    config = Sweep(trials=(trial,), objectives=(Objective("accuracy", ("stages", -1, "validation_accuracy"), True),))
    run(config, tmp_path / "sweep")
    program(trial.module, *trial.arguments, f"--workdir={tmp_path / 'alone'}")
    alone = json.loads((tmp_path / "alone" / "report.json").read_text())
    assert table(tmp_path / "sweep")[0]["results"]["accuracy"] == alone["stages"][-1]["validation_accuracy"] > 0.3


def test_a_listed_stream_is_one_batch():
    listed = sweep_streams.Listed(TRIALS)
    assert (listed.ask(), listed.ask()) == (TRIALS, ())


@pytest.mark.parametrize("name", ["config", "engines", "ray", "records", "report", "streams", "trial"])
def test_examples_in_docstrings_hold(name):
    failed, _ = doctest.testmod(importlib.import_module(f"experiments.sweep_{name}"))
    assert failed == 0
