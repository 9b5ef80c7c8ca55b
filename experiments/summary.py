"""The report of a finished run, read back from what it left on disk.

The test split is read here, once, after every choice has been made on the validation split; the networks it judges are
the reloaded files.
"""

import statistics
import time
from typing import Any

import jax
import numpy as np

from compressjax import storage, trees
from experiments import schema
from experiments.fitting import accuracy, scale
from experiments.phases import CONTROL, DENSE, control_name, quantized_name, stage_name
from experiments.runner import Run, nonzeros
from experiments.workdir import read_metrics

BINS = 60


def summarize(run: Run[schema.Config]) -> dict[str, Any]:
    """Builds ``report.json`` (format: docs/runs.md)."""
    config, metrics = run.config, read_metrics(run.workdir.path)
    restored = run.workdir.restore()
    dense = run.load(DENSE)
    weights = sum(leaf.size for path, leaf in trees.leaves(dense).items() if path.endswith("kernel"))
    parameters = sum(leaf.size for leaf in trees.leaves(dense).values())
    stages = [_stage(run, stage_name(i), config.solver, s, weights, metrics) for i, s in enumerate(config.stages)]
    ladder = config.stages if config.control else ()
    control = [_stage(run, control_name(i), CONTROL, s, weights, metrics) for i, s in enumerate(ladder)]
    quantized = [_quantized(run, quantize, weights, parameters) for quantize in config.quantize]
    smallest = f"{quantized[-1]['name']}.cjx" if quantized else f"{stages[-1]['name']}.cjx" if stages else DENSE
    run.workdir.write("model.cjx", (run.workdir.path / smallest).read_bytes())
    return {
        "config": schema.to_dict(config),
        "seed": config.seed,
        "dataset": config.dataset,
        "splits": {"train": len(run.data.train.labels), "validation": len(run.data.validation.labels)},
        "dense": {"weights": weights, "parameters": parameters, **_judge(run, dense), **_cost(run, dense)},
        "stages": stages,
        "control": control,
        "quantized": quantized,
        "histograms": _histograms(dense, run.load(smallest)),
        "seconds": restored[2]["seconds"] if restored else 0.0,
    }


def headline(report: dict[str, Any]) -> str:
    """The few lines a person reads first."""
    dense = report["dense"]
    lines = [
        f"dense        {dense['weights']:>9,} weights            test {dense['test_accuracy']:.2%}  "
        f"{4 * dense['parameters']:>9,} bytes"
    ]
    for stage in [*report["stages"], *report["control"]]:
        lines.append(
            f"{stage['name']:<12} {stage['weights']:>9,} weights {stage['ratio']:>7.1f}x   "
            f"test {stage['test_accuracy']:.2%}" + (" (gradual magnitude)" if stage["solver"] == CONTROL else "")
        )
    for item in report["quantized"]:
        lines.append(
            f"{item['name']}: {item['bytes']:,} bytes, {item['ratio_file']:,.0f}x smaller with everything in the file, "
            f"{item['ratio_data']:,.0f}x counting weight values only, test {item['test_accuracy']:.2%} (reloaded file)"
        )
    return "\n".join(lines)


def _judge(run: Run[Any], params: Any) -> dict[str, float]:
    model = run.network(params)
    return {
        "validation_accuracy": accuracy(model, params, run.data.validation),
        "test_accuracy": accuracy(model, params, run.data.test()),
    }


def _cost(run: Run[Any], params: Any) -> dict[str, Any]:
    """Multiply-accumulates by XLA's count (dense arithmetic, so only removed units count) and measured latency."""
    model = run.network(params)
    forward = jax.jit(lambda params, images: model.apply(params, scale(images)))
    image = run.data.validation.images[:1]
    compiled = forward.lower(params, image).compile()
    analysis = compiled.cost_analysis() or {}
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    params = jax.tree.map(jax.numpy.asarray, params)
    times = []
    for _ in range(50):
        begin = time.perf_counter()
        jax.block_until_ready(forward(params, image))
        times.append(time.perf_counter() - begin)
    return {"macs": int(analysis.get("flops", 0) // 2), "milliseconds": 1e3 * statistics.median(times[10:])}


def _stage(
    run: Run[schema.Config], name: str, solver: str, stage: schema.Stage, weights: int, metrics: list[dict[str, Any]]
) -> dict[str, Any]:
    params = run.load(f"{name}.cjx")
    kept = nonzeros(params)
    begin = [r for r in metrics if r["phase"] == f"{name}/retrain" and r["step"] == 0]
    return {
        "name": name,
        "solver": solver,
        "weights": sum(kept.values()),
        "ratio": weights / sum(kept.values()),
        "keep": dict(stage.keep),
        "nonzeros": kept,
        "widths": list(run.network(params).config["widths"]),
        "projected_validation_accuracy": begin[0]["validation_accuracy"] if begin else None,
        "epochs": stage.prune.epochs + stage.retrain.epochs,
        "published": stage.published or None,
        **_judge(run, params),
        **_cost(run, params),
    }


def _quantized(run: Run[schema.Config], quantize: schema.Quantize, weights: int, parameters: int) -> dict[str, Any]:
    name = quantized_name(quantize)
    data = (run.workdir.path / f"{name}.cjx").read_bytes()
    params = storage.decode(data).params
    account = storage.account(data)
    bits = trees.assign(quantize.bits, params)
    kept = nonzeros(params)
    value_bits = sum(kept[path] * width for path, width in bits.items())
    biases = [leaf for leaf in account.leaves if leaf.is_bias]
    bias_bits = sum(leaf.size for leaf in biases) * quantize.bias_bits
    streams = account.streams()
    return {
        "name": name,
        "stage": stage_name(quantize.stage),
        "bits": bits,
        "bias_bits": quantize.bias_bits,
        "file": f"{name}.cjx",
        "bytes": len(data),
        "weights": sum(kept.values()),
        "nonzeros": kept,
        # Data only, as in the publications: so many bits per surviving weight, nothing else.
        "ratio_data": 32 * weights / value_bits,
        "ratio_data_with_biases": 32 * parameters / (value_bits + bias_bits),
        # Everything in the file; without biases, what belongs to them is left out on both sides.
        "ratio_file": 32 * parameters / account.bits,
        "ratio_file_without_biases": 32 * weights / (account.bits - sum(leaf.bits for leaf in biases)),
        "streams": streams,
        "header_bits": account.header_bits,
        "published": quantize.published or None,
        **_judge(run, params),
        **_cost(run, params),
    }


def _histograms(dense: Any, compressed: Any) -> dict[str, Any]:
    """Histograms of each kernel before and after, non-zero weights only, on common edges."""
    out = {}
    after = trees.leaves(compressed)
    for path, leaf in trees.leaves(dense).items():
        if path.endswith("kernel"):
            left = after[path][after[path] != 0]
            reach = float(max(np.abs(leaf).max(), np.abs(left).max(initial=0.0)))
            edges = np.linspace(-reach, reach, BINS + 1)
            out[path] = {
                "edges": edges.tolist(),
                "dense": np.histogram(leaf, edges)[0].tolist(),
                "compressed": np.histogram(left, edges)[0].tolist(),
            }
    return out
