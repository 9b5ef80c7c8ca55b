"""Trials on a Ray cluster, each in a process of its own that dies with its worker.

A lost worker or machine costs the time since its trial's last checkpoint: Ray runs the same attempt elsewhere, and the
trial's directory, which all machines share, resumes.  A trial that fails by itself is not tried again.

With `Halving`, Ray Tune's asynchronous successive halving watches the records of every trial and stops the bad ones.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.sweep_config import Halving, Resources, Sweep
from experiments.sweep_engines import Execute, Outcome, lost
from experiments.sweep_trial import PREPARED, STOPPED, UNFINISHED, Job, LostError, attempt, end, state
from experiments.workdir import read_metrics

STORE = 100 * 2**20  # bytes of shared memory for Ray's objects; ours are a few bytes each
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # sends nothing to anyone
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails at once has no metric
    "RAY_AIR_NEW_OUTPUT": "0",
}


@contextlib.contextmanager
def on_ray(sweep: Sweep, address: str = "") -> Iterator[Execute]:
    """Connects to a cluster, or starts one on this machine, for as long as the context lasts.

    Args:
      sweep: Says what a trial needs, how often it is retried, and whether trials are halved.
      address: Of a running cluster, as `ray.init` takes it; "" for a local one.

    Yields:
      The engine.

    Raises:
      ImportError: If Ray is not installed.
      ValueError: If the cluster cannot be reached, or one on this machine can never run a trial; others may grow.
    """
    os.environ.update(QUIET)  # before the first import of Ray, which reads some of them then
    try:
        import ray
    except ImportError as error:
        raise ImportError("--engine=ray needs Ray: pip install 'compressjax[ray]', or use --engine=inline.") from error

    options: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
    if not address:
        options |= {"object_store_memory": STORE, "address": "local"}
    try:
        ray.init(log_to_driver=False, logging_level="error", **options)
    except Exception as error:  # Ray raises many types; the way out is the same for all
        reason = f"{error}".partition("\n")[0]
        raise ValueError(f"The Ray cluster {address or 'on this machine'} cannot be reached: {reason}") from error
    try:
        short = shortage(sweep.resources, ray.cluster_resources())
        if short and not address:
            raise ValueError(f"{short}: ask for less, or give the address of a larger cluster with --ray_address.")
        if short:
            print(f"{short} now: trials wait until the cluster grows.", file=sys.stderr)
        if sweep.halving:
            halving = sweep.halving
            yield lambda jobs: _halved(jobs, sweep, halving)
        else:
            yield lambda jobs: _plain(jobs, sweep)
    finally:
        ray.shutdown()


def options_of(resources: Resources) -> dict[str, Any]:
    """What Ray is to reserve for a trial.

    >>> options_of(Resources(cpus=4, tpus=8))
    {'num_cpus': 4, 'num_gpus': 0.0, 'resources': {'TPU': 8}}
    """
    return {
        "num_cpus": resources.cpus,
        "num_gpus": resources.gpus,
        "resources": {"TPU": resources.tpus} if resources.tpus else {},
    }


def shortage(resources: Resources, found: Mapping[str, float]) -> str:
    """What a cluster has too little of for any trial; "" if nothing.

    >>> shortage(Resources(cpus=4), {"CPU": 2.0})
    'config.resources.cpus is 4 and the cluster has 2'
    """
    for name, kind in (("cpus", "CPU"), ("gpus", "GPU"), ("tpus", "TPU")):
        wanted, have = getattr(resources, name), found.get(kind, 0)
        if wanted > have:
            return f"config.resources.{name} is {wanted:g} and the cluster has {have:g}"
    return ""


def _plain(jobs: Sequence[Job], sweep: Sweep) -> Iterator[Outcome]:
    """All jobs as Ray tasks."""
    import ray

    task = ray.remote(attempt).options(
        max_retries=sweep.retries, retry_exceptions=[LostError], **options_of(sweep.resources)
    )
    pending = {task.remote(job): job for job in jobs}
    while pending:
        done, _ = ray.wait(list(pending), num_returns=1)
        for reference in done:
            job = pending.pop(reference)
            try:
                ray.get(reference)
            except (ray.exceptions.RayError, LostError) as error:
                yield lost(job, error)
            else:
                yield Outcome(job.trial.id, *state(Path(job.directory)))


def _halved(jobs: Sequence[Job], sweep: Sweep, halving: Halving) -> Iterator[Outcome]:
    """All jobs under Ray Tune; trials that ended before take part with the records that they left."""
    if not jobs:
        return
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler

    parent, known = Path(jobs[0].directory).parent, {job.trial.id for job in jobs}
    ended = [trial for trial in {t.id: t for t in sweep.trials}.values() if trial.id not in known]
    like = jobs[0]
    everyone = [Job(t, str(parent / t.id), like.root, like.environment) for t in ended] + list(jobs)
    reserved = options_of(sweep.resources)
    needed = {"cpu": reserved["num_cpus"], "gpu": reserved["num_gpus"], **reserved["resources"]}
    storage = parent.parent / ".tune"
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_watched, jobs=everyone, halving=halving), needed),
        param_space={"job": tune.grid_search(list(range(len(everyone))))},
        tune_config=tune.TuneConfig(
            metric="value",
            mode="max" if halving.maximize else "min",
            scheduler=AsyncHyperBandScheduler(
                time_attr="records",
                grace_period=halving.grace,
                reduction_factor=halving.reduction,
                max_t=halving.most,
                stop_last_trials=False,
            ),
        ),
        run_config=tune.RunConfig(
            name="halving",
            storage_path=str(storage),
            failure_config=tune.FailureConfig(max_failures=sweep.retries),
            callbacks=[_noting(everyone)],
            verbose=0,
        ),
    )
    try:
        results = tuner.fit()
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    for result, job in zip(results, everyone, strict=True):
        if job.trial.id in known:
            status, reason = state(Path(job.directory))
            if status in (PREPARED, UNFINISHED):
                yield lost(job, result.error or RuntimeError("Ray Tune gave it up"))
            else:
                yield Outcome(job.trial.id, status, reason)


def _watched(config: dict[str, Any], jobs: Sequence[Job], halving: Halving) -> None:
    """One trial under Ray Tune: reports the records that it writes, as it writes them."""
    from ray import tune

    job, seen = jobs[config["job"]], 0

    def watch() -> None:
        nonlocal seen
        values = watched(job.directory, halving)
        while seen < len(values):
            seen += 1
            tune.report({"records": seen, "value": values[seen - 1]})

    watch()
    attempt(job, watch)
    watch()


def watched(directory: str, halving: Halving) -> list[float]:
    """The values by which a trial is halved, in the order of its records."""
    found = [r for r in read_metrics(directory) if f"{r.get('phase', '')}".startswith(halving.phase)]
    return [float(record[halving.metric]) for record in found if isinstance(record.get(halving.metric), int | float)]


def _noting(jobs: Sequence[Job]) -> Any:
    """Notes at once what the scheduler stopped, so that a driver that is killed next does not start it again."""
    from ray import tune

    class Stopped(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            directory = Path(jobs[trial.config["job"]].directory)
            if state(directory)[0] in (PREPARED, UNFINISHED):
                records = (trial.last_result or {}).get("records", 0)
                end(directory, STOPPED, f"not among the best after {records} record{'s' * (records != 1)}")

    return Stopped()
