"""The report of a shrink run: ``report.json`` from what the run left on disk, and the page made of it."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compressjax import cost, trees
from compressjax.zoo import Model
from experiments import report, schema, shrink_plots
from experiments.cuts import Cut, ShrinkConfig, cut_name
from experiments.cutting import Knife
from experiments.fitting import accuracy, scale
from experiments.phases import DENSE
from experiments.runner import Run
from experiments.text import count, number, percent
from experiments.workdir import read_metrics

Record = Mapping[str, Any]


def summarize(run: Run[ShrinkConfig]) -> dict[str, Any]:
    """Builds ``report.json`` (format: docs/shrink.md).  The test split is read here, once."""
    config, metrics = run.config, read_metrics(run.workdir.path)
    restored = run.workdir.restore()
    knife = Knife(config, run.model, run.data, run.workdir.path)
    networks = {"dense": run.load_network(DENSE)}
    networks |= {cut_name(cut): run.load_network(f"{cut_name(cut)}.cjx") for cut in config.cuts}
    timings = _timings(networks, run.data.validation.images[:1], config.latency_batch)
    platforms = sorted({cut.cost for cut in config.cuts} - {"macs"})
    modelled = {name: knife.price(name) for name in platforms}
    rows = {}
    for name, (model, params) in networks.items():
        judged = {
            "parameters": sum(leaf.size for leaf in trees.leaves(params).values()),
            "macs": int(cost.macs(_layers(model, params)).sum()),
            "validation_accuracy": accuracy(model, params, run.data.validation),
            "test_accuracy": accuracy(model, params, run.data.test()),
            **timings[name],
        }
        rows[name] = judged
    dense = rows.pop("dense")
    whole = {group.name: group.size for group in knife.net.groups}
    dense["platform_seconds"] = {name: float(price(whole)) for name, price in modelled.items()}
    cuts = [_cut(cut, rows[cut_name(cut)], dense, metrics, modelled) for cut in config.cuts]
    return {
        "config": schema.to_dict(config),
        "seed": config.seed,
        "dataset": config.dataset,
        "splits": {"train": len(run.data.train.labels), "validation": len(run.data.validation.labels)},
        "groups": {group.name: {"size": group.size, "first": group.members[0].path} for group in knife.net.groups},
        "device": jax.devices()[0].device_kind,
        "dense": dense,
        "cuts": cuts,
        "seconds": restored[2]["seconds"] if restored else 0.0,
    }


def _layers(model: Model, params: Any) -> cost.Layers:
    shapes = jax.eval_shape(lambda tree: tree, params)
    return cost.layers(model.apply, shapes, jax.ShapeDtypeStruct((1, *model.input_shape), np.float32))


def _cut(
    cut: Cut, judged: dict[str, Any], dense: Record, metrics: Sequence[Record], modelled: Mapping[str, Any]
) -> dict[str, Any]:
    name = cut_name(cut)
    first = next(r for r in metrics if r["phase"] == f"{name}/retrain" and r["step"] == 0)
    seconds = {platform: float(price(first["widths"])) for platform, price in modelled.items()}
    return {
        "name": name,
        "score": cut.score,
        "allocation": cut.allocation,
        "cost": cut.cost,
        "removed": cut.removed,
        "multiple": cut.multiple,
        "file": f"{name}.cjx",
        "widths": first["widths"],
        "rounds": first.get("rounds", []),
        "before_accuracy": first["validation_accuracy"],
        "macs_ratio": dense["macs"] / judged["macs"],
        "speedup": dense["milliseconds"] / judged["milliseconds"],
        "platform_seconds": seconds,
        "platform_speedup": {p: dense["platform_seconds"][p] / s for p, s in seconds.items()},
        **judged,
    }


def _timings(networks: Mapping[str, tuple[Model, Any]], image: Any, batch: int) -> dict[str, dict[str, float]]:
    """Milliseconds per call at a batch and at one image, all networks taking turns."""
    calls = []
    for size in (batch, 1):
        x = scale(jnp.repeat(jnp.asarray(image), size, axis=0))
        for model, params in networks.values():
            forward = jax.jit(model.apply)
            arguments = jax.device_put((params, x))
            calls.append(lambda forward=forward, arguments=arguments: forward(*arguments))
    found = cost.take_turns(calls, repeats=15)
    out = {}
    for i, name in enumerate(networks):
        many, single = found[i], found[len(networks) + i]
        out[name] = {
            "milliseconds": 1e3 * many.median,
            "milliseconds_least": 1e3 * many.minimum,
            "milliseconds_single": 1e3 * single.median,
        }
    return out


def headline(report: Record) -> str:
    """The few lines a person reads first."""
    dense = report["dense"]
    lines = [
        f"{'dense':<28} {dense['macs'] / 1e6:>8.2f} M MACs  {dense['parameters']:>9,} parameters  "
        f"{dense['milliseconds']:>8.2f} ms          test {dense['test_accuracy']:.2%}"
    ]
    for cut in report["cuts"]:
        lines.append(
            f"{cut['name']:<28} {cut['macs'] / 1e6:>8.2f} M MACs  {cut['parameters']:>9,} parameters  "
            f"{cut['milliseconds']:>8.2f} ms {cut['speedup']:>5.2f}x   test {cut['test_accuracy']:.2%}"
        )
    return "\n".join(lines)


COLUMNS: tuple[report.Column, ...] = (
    ("cut", lambda r: str(r["name"])),
    ("MACs", lambda r: count(r["macs"])),
    ("fewer MACs", lambda r: f"{r.get('macs_ratio', 1.0):.2f}×"),
    ("parameters", lambda r: count(r["parameters"])),
    ("test", lambda r: percent(r["test_accuracy"])),
    ("validation", lambda r: percent(r["validation_accuracy"])),
    ("validation before retraining", lambda r: percent(r.get("before_accuracy"))),
    ("ms, batch", lambda r: number(r["milliseconds"])),
    ("faster", lambda r: f"{r.get('speedup', 1.0):.2f}×"),
    ("ms, one image", lambda r: number(r["milliseconds_single"])),
    ("faster on the platform it was cut for", lambda r: _on_its_platform(r)),
)


def _on_its_platform(row: Record) -> str:
    """The speed-up on the platform whose latency a cut was to save; empty where that was no platform."""
    found = row.get("platform_speedup", {}).get(row.get("cost"))
    if found is None:
        return ""
    how = "sum of measured layers" if row["cost"] == "host" else "modelled"
    return f"{found:.2f}× ({row['cost']}, {how})"


def html(found: Record) -> str:
    """The page as text."""
    config, dense, cuts = found["config"], found["dense"], found["cuts"]
    best = max(cuts, key=lambda cut: cut["validation_accuracy"])  # the test split chooses nothing
    title = f"{config['model']} on {found['dataset']}, fewer channels"
    rows = [{"name": "dense", **dense}, *cuts]
    batch = config["latency_batch"]
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>A network of {dense['parameters']:,} parameters and {dense['macs']:,} multiply-adds, cut in {len(cuts)} "
        f"ways. The most accurate on validation images, {escape(best['name'])}, classifies "
        f"{percent(best['test_accuracy'])} of the test images with {best['macs_ratio']:.2f}× fewer multiply-adds; "
        f"the dense network {percent(dense['test_accuracy'])}.</p>",
        f'<p class="soft">{report.circumstances(found)}</p>',
        "<h2>Cuts</h2>",
        report.table(COLUMNS, rows, ("cut",)),
        f'<p class="soft">Channels are removed, not masked. Milliseconds are medians on {escape(found["device"])} for '
        f"{batch} images and for one, all networks taking turns; multiply-adds are per image.</p>",
        *report.picture(
            "Accuracy against cost",
            shrink_plots.accuracy_against_cost(found),
            "Test accuracy after retraining against multiply-adds and against measured time, one line per way to cut.",
        ),
        *report.picture(
            "Channels that are left",
            shrink_plots.widths_kept(found),
            "Share of each channel group that is left. Groups in the order of the network.",
        ),
        "<details><summary>Configuration</summary>",
        f"<pre>{escape(json.dumps(config, indent=2))}</pre></details>",
    ]
    return report.page(title, body)
