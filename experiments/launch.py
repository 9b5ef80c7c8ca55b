"""What every program shares: flags, the compilation cache, and errors as one sentence."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from experiments import distributed

PREEMPTED = os.EX_TEMPFAIL  # 75: "try again later" of sysexits.h
LOST = (
    "another process of this run was lost ({}); the last complete checkpoint is kept: start all processes again with "
    "the same command."
)
POD = ("distributed", "coordinator_address", "num_processes", "process_id", "heartbeat_seconds")
LONGEST = 300  # letters of a complaint about flags: those that were given may be of any length


def cache_compilations() -> None:
    """Keeps compiled programs in JAX's persistent cache (``JAX_COMPILATION_CACHE_DIR`` chooses another folder)."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(Path(".jax_cache").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def program(
    run: Callable[..., dict[str, Any]], headline: Callable[[dict[str, Any]], str], *, pod: bool = False
) -> None:
    """Launches a program that is one call of `run`, and prints what came of it.

    Args:
      run: (configuration, workdir) -> report; with `pod` it takes a `fleet` as well.
      headline: Report -> the lines that a person reads first.
      pod: As for `launch`.
    """

    def main(argv: list[str]) -> None:
        refuse_arguments(argv)
        cache_compilations()
        given = flags.FLAGS
        if pod:
            processes = fleet()
            report = run(given.config, given.workdir, fleet=processes)
            if not processes.leads:
                return
        else:
            report = run(given.config, given.workdir)
        print(headline(report))
        print(f"Report: {report_in(given.workdir)}")

    launch(main, pod=pod)


def refuse_arguments(argv: Sequence[str]) -> None:
    """Raises `app.UsageError` if there is anything but flags."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")


def report_in(workdir: str) -> Path:
    """The page of a finished run; of one without a page its ``report.json``."""
    folder = Path(workdir).resolve()
    page = folder / "report.html"
    return page if page.exists() else folder / "report.json"


def launch(main: Callable[[list[str]], None], *, pod: bool = False) -> None:
    """Runs an absl program with ``--config`` and ``--workdir``; bad input ends it with one sentence and status 1.

    Args:
      main: Takes the arguments that are no flags.
      pod: Whether the program asks for `fleet`: it then has ``--distributed``, and ends with status 75 when a SIGTERM
        made it stop.
    """
    from ml_collections import config_flags

    config_flags.DEFINE_config_file("config", None, "Configuration file, e.g. configs/digits_admm.py[:profile].")
    flags.DEFINE_string("workdir", None, "Directory of the run; the same command again resumes it.")
    flags.mark_flags_as_required(["config", "workdir"])
    if pod:
        flags.DEFINE_bool("distributed", False, "Join the other processes of this run, on this machine or others.")
        flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0, where the machine does not say it.")
        flags.DEFINE_integer("num_processes", None, "How many processes; with --coordinator_address.", lower_bound=1)
        flags.DEFINE_integer("process_id", None, "Which of them, from 0; with --coordinator_address.", lower_bound=0)
        flags.DEFINE_integer(
            "heartbeat_seconds", distributed.HEARTBEAT, "Silence after which a process counts as lost.", lower_bound=1
        )

    for name in ("config", "workdir", *(POD if pod else ())):  # --help shows what belongs to the program that is run
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def guarded(argv: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax reports every checkpoint at INFO
        try:
            main(argv)
        except distributed.Preempted as stop:
            print(f"stopped: {stop}", file=sys.stderr)
            sys.exit(PREEMPTED)
        except Exception as error:
            if joined() and distributed.peer_lost(error):
                print("error:", LOST.format(f"{error}".partition("\n")[0]), file=sys.stderr)
                fail()
            if isinstance(error, ValueError | OSError | ImportError):
                print(f"error: {error}", file=sys.stderr)
                fail()
            if not joined():
                raise
            traceback.print_exc()
            print("error: this process ends, and with it the run; start all its processes again.", file=sys.stderr)
            fail()

    app.run(guarded, flags_parser=parse)


def fleet() -> distributed.Fleet:
    """This process among those of its run, as the flags of a program with ``pod=True`` say."""
    values = flags.FLAGS
    known = [name for name in ("coordinator_address", "num_processes", "process_id") if values[name].value is not None]
    if not values.distributed:
        if known:
            raise ValueError(f"--{known[0]} says where the processes of a run meet; add --distributed.")
        return distributed.until_sigterm()
    if known and len(known) < 3:
        raise ValueError(f"--{known[0]} alone does not place a process: pass address, number and id, or none of them.")
    return distributed.initialize(
        values.coordinator_address, values.num_processes, values.process_id, heartbeat=values.heartbeat_seconds
    )


def joined() -> bool:
    """Whether this process is one of several."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def fail() -> None:
    """Ends the process with status 1: at once if others wait for it, who then end too."""
    if joined():  # leaving in order would wait for them, and they for us
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    sys.exit(1)


def parse(argv: Sequence[str], known: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses the flags; an override that names no field or has another type is one sentence."""
    try:
        return known(argv)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, flags.Error) as error:
        reason = " ".join(f"{error.args[0] if error.args else error}".split())
        if len(reason) > LONGEST:
            reason = f"{reason[:LONGEST]} ..."
        if isinstance(error, LookupError) and " " not in reason:
            reason = f"the configuration has no entry {reason!r}."
    print(f"error: {reason}\nPass --help to see the flags.", file=sys.stderr)
    sys.exit(2)
