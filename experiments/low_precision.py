"""Trains a network with quantized weights and activations, and reports its accuracy beside that in float.

    python -m experiments.low_precision --config=configs/lenet300_low_precision.py --workdir=runs/lenet300_low_precision

Phases: a float network (trained, or loaded) -> trained on in float, the control at equal epochs -> for every scheme:
ranges from training images, training from the float network with quantizers inside, kernels to their levels, a file ->
evaluate every reloaded file on the test split, once.  Where weights have learned steps, the network is also evaluated
on integers.  Running the same command again resumes.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.phases import Phase
    from experiments.runner import Run
    from experiments.schemes import LowPrecisionConfig, Scheme

CONTROL = "float"


def run(config: "LowPrecisionConfig", workdir: str | Path, *, progress: bool = True) -> dict[str, Any]:
    """Runs (or resumes) a run and returns its report.

    Args:
      config: What to do; see `experiments.schemes.LowPrecisionConfig`.
      workdir: Where to do it; see `experiments.workdir`.
      progress: Whether to show progress bars (they stay quiet when stderr is not a terminal).

    Returns:
      The contents of ``report.json``.

    Raises:
      ValueError: On any bad input, in one sentence, before anything half-written remains.
    """
    from experiments import schema, schemes
    from experiments.runner import Run
    from experiments.workdir import Workdir

    schemes.check(config)
    with Workdir(workdir, schema.to_dict(config)) as directory:
        return directory.finish(lambda: summarize(Run(config, directory, plan, progress=progress).train()), html)


def plan(run: "Run[LowPrecisionConfig]") -> "list[Phase]":
    """The phases of a run: the control and every scheme start from the same float network."""
    from experiments.phases import DENSE, Phase, optimizer

    config = run.config
    if not run.model.chain:
        raise ValueError(f"config.model is {config.model!r}; low precision wants a chain of layers, such as lenet300.")

    def fitted(fit: Any) -> Any:
        return lambda _, steps: optimizer(fit, steps)

    phases = [] if config.load else [Phase("pretrain", config.pretrain, fitted(config.pretrain), artifact=DENSE)]
    phases.append(
        Phase(
            CONTROL,
            config.train,
            fitted(config.train),
            begin=lambda _: run.load(DENSE),
            artifact=f"{CONTROL}.cjx",
        )
    )
    return phases + [_phase(run, scheme) for scheme in config.schemes]


def _phase(run: "Run[LowPrecisionConfig]", scheme: "Scheme") -> "Phase":
    import jax.numpy as jnp

    from experiments.fitting import scale
    from experiments.phases import DENSE, Phase, optimizer
    from experiments.schemes import QuantizedModel, scheme_name

    config = run.config
    model = QuantizedModel(run.model, QuantizedModel.of(scheme))
    images = run.data.train.images[: config.calibration_images]
    return Phase(
        scheme_name(scheme),
        config.train,
        lambda _, steps: optimizer(config.train, steps),
        begin=lambda _: model.start(run.load(DENSE), scale(jnp.asarray(images))),
        end=model.finish,
        artifact=f"{scheme_name(scheme)}.cjx",
        inside=lambda _: model,
    )


def summarize(run: "Run[LowPrecisionConfig]") -> dict[str, Any]:
    """Builds ``report.json``.  The test split is read here, once, by networks read back from their files."""
    from experiments import schema
    from experiments.fitting import accuracy
    from experiments.phases import DENSE
    from experiments.schemes import scheme_name
    from experiments.workdir import read_metrics

    config, metrics = run.config, read_metrics(run.workdir.path)
    rows = []
    for name, file in (("dense", DENSE), (CONTROL, f"{CONTROL}.cjx")):
        params = run.load(file)
        rows.append({"name": name, "bytes": _bytes(run, file), **_judged(run, run.model, params, accuracy)})
    for scheme in config.schemes:
        name = scheme_name(scheme)
        first = next(r for r in metrics if r["phase"] == name and r["step"] == 0)
        rows.append({**_scheme(run, scheme), "before_accuracy": first["validation_accuracy"]})
    restored = run.workdir.restore()
    return {
        "config": schema.to_dict(config),
        "seed": config.seed,
        "dataset": config.dataset,
        "splits": {"train": len(run.data.train.labels), "validation": len(run.data.validation.labels)},
        "rows": rows,
        "seconds": restored[2]["seconds"] if restored else 0.0,
    }


def _scheme(run: "Run[LowPrecisionConfig]", scheme: "Scheme") -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    from compressjax import quantizers
    from experiments.fitting import accuracy
    from experiments.schemes import QuantizedModel, Quantizers, kernel_values, largest_sum, scheme_name

    file = f"{scheme_name(scheme)}.cjx"
    params = jax.tree.map(jnp.asarray, run.load(file))
    parts = QuantizedModel.of(scheme)
    # Kernels in the file are levels already, which quantizing again would not always leave alone.
    model = QuantizedModel(run.model, Quantizers(None, parts.activations))
    row = {
        "name": scheme_name(scheme),
        "weights": scheme.weights,
        "activations": scheme.activations,
        "weight_bits": scheme.weight_bits,
        "activation_bits": scheme.activation_bits,
        "values": kernel_values(params),
        "bytes": _bytes(run, file),
        **_judged(run, model, params, accuracy),
    }
    if not isinstance(parts.weights, quantizers.LearnedStep):
        return row
    return row | _integers(run, QuantizedModel(run.model, parts), model, params, largest_sum)


def _integers(run: "Run[LowPrecisionConfig]", model: Any, fake: Any, params: Any, largest_sum: Any) -> dict[str, Any]:
    """Validation images on integers: accuracy, and on how many images both paths predict the same."""
    import jax
    import numpy as np

    from experiments.fitting import logits_of, scale

    images, labels = run.data.validation
    forward = jax.jit(lambda params, x: model.integer(params, scale(x)))
    ours = np.concatenate(
        [np.asarray(forward(params, images[i : i + 500])) for i in range(0, len(images), 500)]
    ).argmax(-1)
    theirs = logits_of(fake, params, images).argmax(-1)
    return {
        "integer_accuracy": float((ours == labels).mean()),
        "integer_differs": int((ours != theirs).sum()),
        "largest_sum": largest_sum(model, params),
    }


def _judged(run: "Run[LowPrecisionConfig]", model: Any, params: Any, accuracy: Any) -> dict[str, float]:
    return {
        "validation_accuracy": accuracy(model, params, run.data.validation),
        "test_accuracy": accuracy(model, params, run.data.test()),
    }


def _bytes(run: "Run[LowPrecisionConfig]", file: str) -> int:
    return (run.workdir.path / file).stat().st_size


def headline(report: dict[str, Any]) -> str:
    """The few lines a person reads first."""
    lines = []
    for row in report["rows"]:
        integer = (
            f"   on integers {row['integer_accuracy']:.2%} of validation images, "
            f"{row['integer_differs']} predicted otherwise"
            if "integer_accuracy" in row
            else ""
        )
        lines.append(
            f"{row['name']:<22} test {row['test_accuracy']:.2%}  validation {row['validation_accuracy']:.2%}  "
            f"{row['bytes']:>9,} bytes{integer}"
        )
    return "\n".join(lines)


def html(found: dict[str, Any]) -> str:
    """The page as text."""
    from html import escape

    from experiments import report
    from experiments.text import count, percent

    columns: tuple[report.Column, ...] = (
        ("scheme", lambda r: str(r["name"])),
        ("test", lambda r: percent(r["test_accuracy"])),
        ("validation", lambda r: percent(r["validation_accuracy"])),
        ("validation before training", lambda r: percent(r.get("before_accuracy"))),
        ("validation, integers", lambda r: percent(r.get("integer_accuracy"))),
        ("predicted otherwise", lambda r: count(r["integer_differs"]) if "integer_differs" in r else ""),
        ("bytes", lambda r: count(r["bytes"])),
    )
    config = found["config"]
    title = f"{config['model']} on {found['dataset']}, low precision"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{report.circumstances(found)}</p>',
        "<h2>Schemes</h2>",
        report.table(columns, found["rows"], ("scheme",)),
        '<p class="soft">A scheme names the quantizer and the bits of the weights, then of the hidden activations; the '
        f"first layer sees 8-bit pixels. “{CONTROL}” is the float network trained as long as the schemes.</p>",
        "<details><summary>Configuration</summary>",
        f"<pre>{escape(json.dumps(config, indent=2))}</pre></details>",
    ]
    return report.page(title, body)


if __name__ == "__main__":
    from experiments.launch import program

    program(run, headline)
