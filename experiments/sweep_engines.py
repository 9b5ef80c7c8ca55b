"""Where trials run: an engine is a context manager whose value runs jobs and yields each one's outcome as it ends.

inline  in this process, one after another
ray     on a Ray cluster, a local one by default; each trial in a process of its own (`sweep_ray`)
print   not at all: one command line per trial on standard output, for SLURM arrays, xpk, GKE job sets

A trial's state lies in its directory, so engines can be changed between one command and the next.
"""

import contextlib
import importlib
import importlib.util
import inspect
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from experiments.sweep_config import Sweep, Trial
from experiments.sweep_trial import FAILED, FINISHED, LOST, Job, LostError, await_writer, begin, end, state

ENGINES = ("inline", "ray", "print")


class Outcome(NamedTuple):
    """How a job ended: the trial's id, its status, and the reason if it did not finish."""

    id: str
    status: str
    reason: str


Execute = Callable[[Sequence[Job]], Iterator[Outcome]]


def engine(name: str, sweep: Sweep, *, ray_address: str = "") -> AbstractContextManager[Execute]:
    """An engine by name.

    Args:
      name: One of `ENGINES`.
      sweep: Whose trials it will run.
      ray_address: Of a running cluster, for "ray"; by default a local one is started and ended.

    Returns:
      The engine, not yet entered.

    Raises:
      ValueError: If there is no such engine, or it cannot do what the sweep asks.
    """
    if name not in ENGINES:
        raise ValueError(f"engine is {name!r}; choose one of {', '.join(ENGINES)}.")
    if sweep.halving and name != "ray":
        raise ValueError(f"config.halving needs --engine=ray: {name!r} cannot stop a trial early.")
    if ray_address and name != "ray":
        raise ValueError(f"--ray_address is {ray_address!r}, but the engine is {name!r}; add --engine=ray.")
    if name == "ray":
        from experiments import sweep_ray

        return sweep_ray.on_ray(sweep, ray_address)
    return contextlib.nullcontext(inline if name == "inline" else printed)


def inline(jobs: Sequence[Job]) -> Iterator[Outcome]:
    """Runs jobs in this process; whatever a trial raises is its failure, and the next one begins."""
    for job in jobs:
        directory = Path(job.directory)
        try:
            await_writer(directory, 0.0)
            begin(directory)
            program = importlib.import_module(job.trial.module)
            quiet = {"progress": False} if "progress" in inspect.signature(program.run).parameters else {}
            program.run(resolve(job.trial), job.directory, **quiet)
            reason = "" if state(directory)[0] == FINISHED else f"{job.trial.module} ended without a report.json"
        except LostError as error:
            yield lost(job, error)
            continue
        except Exception as error:
            known = isinstance(error, ValueError | OSError | ImportError)  # what programs raise on purpose
            reason = f"{error}" if known and f"{error}" else f"{type(error).__name__}: {error}"
        if reason:
            end(directory, FAILED, reason)
        yield Outcome(job.trial.id, *state(directory))


def printed(jobs: Sequence[Job]) -> Iterator[Outcome]:
    """Prints a command line for each job, and yields nothing: others will run them."""
    for job in jobs:
        print(command(job))
    yield from ()


def command(job: Job) -> str:
    """What a shell needs to run a job from the root of the checkout."""
    return shlex.join(["python", "-m", job.trial.module, *job.trial.arguments, f"--workdir={job.directory}"])


def lost(job: Job, error: Exception) -> Outcome:
    """Of a job that was given up; the same sweep command tries it again."""
    reason = f"{error}".strip().splitlines() or [type(error).__name__]
    return Outcome(job.trial.id, LOST, reason[-1])


def resolve(trial: Trial) -> Any:
    """A trial's configuration, read and overridden exactly as on a command line.

    Raises:
      ValueError: If its program or file cannot be read, or an override names no field or has another type.
    """
    from absl import flags
    from ml_collections import config_flags

    try:
        found, why = importlib.util.find_spec(trial.module), ""
    except (ImportError, ValueError) as error:  # of the package that it is to be in
        found, why = None, f" ({error})"
    if found is None:
        raise ValueError(f"There is no program {trial.module!r}{why}; name a module with run(config, workdir).")
    values, argv = flags.FlagValues(), ["sweep", *trial.arguments]
    config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the way ml_collections loads a file
            values(argv)
        config = values["config"].value
        getattr(config, "dataset", None)  # what stands for a file that could not be read says why
    except (KeyError, TypeError, ValueError, IndexError, OSError, ImportError, flags.Error) as error:
        line = shlex.join([trial.program, *trial.arguments])
        reason = " ".join(f"{error.args[0] if error.args else error}".split())
        raise ValueError(f"The trial {line} cannot be read: {reason}") from error
    return config
