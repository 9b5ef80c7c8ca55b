"""A program for tests of sweeps: it takes the steps that a folder of files allows, and resumes like the real ones.

It imports no JAX, so that a test can start it many times.  A step waits for the file ``open``, or one with the trial's
seed as its name, in the folder `gate`; the first step waits for nothing.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags

from experiments import launch, schema
from experiments.distributed import Preempted, never
from experiments.workdir import Workdir, read_metrics


@dataclass
class Slow:
    gate: str = ""
    seed: int = 0
    size: float = 1.0
    kind: str = "a"
    steps: int = 3
    fail: str = ""


def run(
    config: Slow, workdir: str | Path, *, progress: bool = True, stopping: Callable[[], bool] = never
) -> dict[str, Any]:
    with Workdir(workdir, schema.to_dict(config)) as directory:
        with open(directory.path / "pids", "a") as pids:
            pids.write(f"{os.getpid()}\n")
        if config.fail:
            raise ValueError(config.fail)
        if not (directory.path / "report.json").exists():
            gate = Path(config.gate)
            for step in range(len(read_metrics(directory.path)), config.steps):
                while step and config.gate and not ((gate / "open").exists() or (gate / str(config.seed)).exists()):
                    if stopping():
                        raise Preempted(f"step {step} is kept.")
                    time.sleep(0.05)
                directory.record({"step": step, "phase": "slow", "value": config.size})
            with open(directory.path / "ends", "a") as ends:
                ends.write("end\n")
            found = {"loss": (config.size - 2) ** 2, "cost": config.size, "config": dataclasses.asdict(config)}
            directory.write("report.json", json.dumps(found).encode())
        return json.loads((directory.path / "report.json").read_text())


def main(argv: list[str]) -> None:
    run(flags.FLAGS.config, flags.FLAGS.workdir, stopping=launch.fleet().stopping)


if __name__ == "__main__":
    launch.launch(main, pod=True)
