"""What every program shares: flags, the compilation cache, and errors as one sentence."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging


def cache_compilations() -> None:
    """Keeps compiled programs in JAX's persistent cache (``JAX_COMPILATION_CACHE_DIR`` chooses another folder)."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(Path(".jax_cache").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def launch(main: Callable[[list[str]], None]) -> None:
    """Runs an absl program with ``--config`` and ``--workdir``; bad input ends it with one sentence and status 1."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file("config", None, "Configuration file, e.g. configs/digits_admm.py[:profile].")
    flags.DEFINE_string("workdir", None, "Directory of the run; the same command again resumes it.")
    flags.mark_flags_as_required(["config", "workdir"])

    def guarded(argv: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax reports every checkpoint at INFO
        try:
            main(argv)
        except (ValueError, OSError, ImportError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    app.run(guarded, flags_parser=parse)


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the flags; an override that names no field or has another type is one sentence."""
    try:
        return flags.FLAGS(argv)
    except (KeyError, TypeError, ValueError, flags.Error) as error:
        reason = error.args[0] if error.args else error
    print(f"error: {reason}\nPass --help to see the flags.", file=sys.stderr)
    sys.exit(2)
