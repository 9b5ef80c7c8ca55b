"""Compresses a network in one shot by every method at every sparsity, and compares them before any retraining.

    python -m experiments.oneshot --config=configs/resnet_oneshot.py --workdir=runs/resnet20_oneshot

Calibration sees unlabelled training inputs alone.  A network on images is judged by its accuracy, with all batch
normalizations as they were; nothing is chosen by it, so every network is evaluated on the test split.
A network on tokens with random weights has no accuracy: it is judged by how far its predictions move on tokens not used
for calibration, the mean Kullback-Leibler divergence from the dense network's.  Running the same command again resumes.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the library is imported when there is something to compute: --help stays fast
    from compressjax.projections import Constraint
    from experiments.oneshot_config import OneshotConfig
    from experiments.workdir import Workdir


def run(config: "OneshotConfig", workdir: str | Path) -> dict[str, Any]:
    """Runs (or resumes) a comparison and returns its report.

    Args:
      config: What to do.
      workdir: Where; holds ``config.json``, ``metrics.jsonl`` with one line per network, and ``report.json``;
        with bits, also a file per network and ``curve.svg``.

    Returns:
      The contents of ``report.json``.

    Raises:
      ValueError: On bad input, in one sentence.
    """
    from experiments.oneshot_config import check
    from experiments.schema import to_dict
    from experiments.workdir import Workdir

    check(config)
    with Workdir(workdir, to_dict(config)) as directory:

        def make() -> dict[str, Any]:
            report = _compare(config, directory)
            if config.bits:
                from experiments import style
                from experiments.oneshot_plots import curve

                directory.write("curve.svg", style.render(curve(report)))
            return {"config": to_dict(config), **report}

        return directory.finish(make)


@dataclass(frozen=True)
class _Case:
    """A dense network with its data: what to calibrate on, and how to judge."""

    apply: Callable[[Any, Any], Any]
    params: Any
    batches: list[Any]
    judge: Callable[[Any], dict[str, float]]


def _compare(config: "OneshotConfig", directory: "Workdir") -> dict[str, Any]:
    from compressjax import trees
    from experiments.workdir import read_metrics

    case = (_tokens if config.dataset == "" else _images)(config)
    dense = case.judge(case.params)
    kernels = [path for path in trees.assign({**dict.fromkeys(config.fixed), "*kernel": True}, case.params)]
    known = read_metrics(directory.path)
    cells = []
    for pattern, constraint in patterns(config):
        for method in config.methods:
            cell = next((c for c in known if (c["pattern"], c["method"]) == (pattern, method)), None)
            if cell is None:
                found, params = _cell(case, kernels, constraint, method)
                cell = {"pattern": pattern, "method": method, **found}
                if config.bits:
                    cell["bytes"] = _write(directory, f"{method}-{pattern}.cjx", params)
                directory.record(cell)
            cells.append(cell)
    import jax

    weights = sum(int(trees.leaves(case.params)[path].size) for path in kernels)
    return {"dense": dense, "kernels": len(kernels), "weights": weights, "jax": jax.__version__, "cells": cells}


def patterns(config: "OneshotConfig") -> "Iterator[tuple[str, Constraint]]":
    """Every set of the configuration with its name."""
    from compressjax.projections import NM, Both, Cardinality
    from compressjax.quantizers import Levels

    sparse: list[tuple[str, Any]] = [
        (f"{100 * share:g} %", Cardinality(round(1 - share, 9)) if share else None) for share in config.removed
    ]
    sparse += [(f"{n}:{m}", NM(n, m)) for n, m in config.n_of_m]
    for name, constraint in sparse:
        if not config.bits:
            yield name, constraint
        for bits in config.bits:
            levels = Levels(bits)
            yield f"{name}, {bits} bit", levels if constraint is None else Both(constraint, levels)


def _write(directory: "Workdir", name: str, params: Any) -> int:
    """The bytes of a network's file."""
    from compressjax import storage

    data = storage.encode(storage.positive_zeros(params))
    directory.write(name.replace(" ", "").replace(":", "of").replace(",", "-").replace("%", ""), data)
    return len(data)


def _cell(case: _Case, kernels: Sequence[str], constraint: "Constraint", method: str) -> tuple[dict[str, Any], Any]:
    """What became of one network, and its parameters."""
    from compressjax import oneshot

    begin = time.perf_counter()
    rules = dict.fromkeys(kernels, constraint)
    params, layers = oneshot.compress(case.apply, case.params, case.batches, rules, getattr(oneshot, method))
    found = {
        "seconds": time.perf_counter() - begin,
        "kept": sum(layer.kept for layer in layers),
        "layer_error": statistics.fmean(layer.error for layer in layers),
        "shortages": [str(layer) for layer in layers if layer.shortage],
        **case.judge(params),
    }
    return found, params


def _images(config: "OneshotConfig") -> _Case:
    """A network on images, judged by accuracy."""
    import jax
    import numpy as np

    from compressjax import data, interop, zoo
    from experiments.fitting import accuracy, scale

    dataset = data.load(config.dataset, validation=config.validation, seed=config.seed)
    if config.load == "pretrained":
        model, params = interop.pretrained(config.model)
    else:
        shape = dataset.train.images.shape[1:]
        model = zoo.build(config.model, classes=dataset.classes, input_shape=shape, **config.options)
        params = model.init(jax.random.key(config.seed))
    if config.calibration > len(dataset.train.images):
        raise ValueError(
            f"config.calibration is {config.calibration}; {config.dataset} has {len(dataset.train.images)} images."
        )
    # The training split is shuffled by the seed already.
    chosen = np.split(dataset.train.images[: config.calibration], config.calibration // config.batch_size)

    def judge(params: Any) -> dict[str, float]:
        return {
            "validation_accuracy": accuracy(model, params, dataset.validation),
            "test_accuracy": accuracy(model, params, dataset.test()),
        }

    params = jax.tree.map(jax.numpy.asarray, params)
    return _Case(lambda p, x: model.apply(p, scale(x)), params, [jax.numpy.asarray(part) for part in chosen], judge)


def _tokens(config: "OneshotConfig") -> _Case:
    """A network with random weights on random tokens, judged by how far its predictions move."""
    import jax
    import jax.numpy as jnp

    from compressjax import zoo

    model = zoo.build(config.model, **config.options)
    params = jax.jit(model.init)(jax.random.key(config.seed))

    def draw(key: Any, count: int) -> Any:
        return jax.random.randint(key, (count, *model.input_shape), 0, model.classes)

    calibration, unseen = jax.random.split(jax.random.key(config.seed + 1))
    keys = jax.random.split(calibration, config.calibration // config.batch_size)
    held = draw(unseen, config.evaluation)

    @jax.jit
    def predict(params: Any, x: Any) -> Any:
        return jax.nn.log_softmax(model.apply(params, x))

    parts = [held[i : i + config.batch_size] for i in range(0, config.evaluation, config.batch_size)]

    def judge(new: Any) -> dict[str, float]:
        total = 0.0
        for part in parts:
            before, after = predict(params, part), predict(new, part)
            total += float(jnp.sum(jnp.exp(before) * (before - after)))
        return {"divergence": total / held.size}

    return _Case(model.apply, params, [draw(key, config.batch_size) for key in keys], judge)


def headline(report: dict[str, Any]) -> str:
    """The lines that a person reads first."""
    dense = f"dense: {report['dense']}; {report['kernels']} kernels, {report['weights']:,} weights"
    return f"{dense}\n{to_markdown(report)}"


def to_markdown(report: dict[str, Any]) -> str:
    """A row per pattern, a column per method: test accuracy or divergence, the mean relative output error, bytes."""
    methods = list(dict.fromkeys(cell["method"] for cell in report["cells"]))
    lines = ["| removed | " + " | ".join(methods) + " |", "| --- |" + " ---: |" * len(methods)]
    for pattern in dict.fromkeys(cell["pattern"] for cell in report["cells"]):
        by = {cell["method"]: cell for cell in report["cells"] if cell["pattern"] == pattern}
        lines.append(f"| {pattern} | " + " | ".join(_text(by[m]) if m in by else "" for m in methods) + " |")
    return "\n".join(lines)


def _text(cell: dict[str, Any]) -> str:
    worth = f"{100 * cell['test_accuracy']:.2f} %" if "test_accuracy" in cell else f"KL {cell['divergence']:.3g}"
    size = f", {cell['bytes']:,} bytes" if "bytes" in cell else ""
    return f"{worth} ({cell['layer_error']:.3g}){size}"


if __name__ == "__main__":
    from experiments.launch import program

    program(run, headline)
