"""The report of `experiments.storage_study`: ``report.json``, and the page with the crossover plot."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compressjax import cost, interop, runtime, trees
from experiments import phases, report, schema
from experiments.fitting import accuracy
from experiments.runner import Run
from experiments.storage_study import best, quantized_name
from experiments.study_config import DENSE, FLOAT, LABELS, WEIGHTS, Scheme, StudyConfig, kernels, rules, rung
from experiments.study_costs import CODECS, formats, required, single_weights
from experiments.study_plots import CODEC_LABELS, crossover, needed
from experiments.text import count, number, percent, size, times

Record = Mapping[str, Any]


def summarize(run: Run[StudyConfig]) -> dict[str, Any]:
    """Builds ``report.json`` (format: docs/storage_study.md).  The test split is read here, once."""
    config = run.config
    networks = _Networks(run)
    dense = networks.params(DENSE)
    weights = sum(math.prod(shape) for shape in kernels(trees.shapes(dense)).values())
    schemes = [_scheme(networks, scheme, weights) for scheme in config.schemes]
    sizes = single_weights(dense, (*config.bits, FLOAT))
    free = next(found for found in schemes if found["kind"] == WEIGHTS)
    for found in schemes:
        found["advantage"] = free["ratio"] / found["ratio"]
        if found["kind"] != WEIGHTS:
            native = {file["bits"]: file["formats"]["native"] for file in found["files"]}
            found["required"] = required(sizes, native, found["ratio"])
    restored = run.workdir.restore()
    return {
        "config": schema.to_dict(config),
        "seed": config.seed,
        "dataset": config.dataset,
        "splits": {"train": len(run.data.train.labels), "validation": len(run.data.validation.labels)},
        "device": jax.devices()[0].device_kind,
        "dense": {
            "weights": weights,
            "parameters": sum(math.prod(shape) for shape in trees.shapes(dense).values()),
            **networks.judged(DENSE),
        },
        "schemes": schemes,
        "latency": _latency(networks, schemes),
        "seconds": restored[2]["seconds"] if restored else 0.0,
    }


class _Networks:
    """The networks of a run by name, each read and judged once."""

    def __init__(self, run: Run[StudyConfig]):
        self.run = run
        self.params = cache(lambda name: run.load(f"{name}.cjx"))
        self.validation = cache(lambda name: accuracy(run.model, self.params(name), run.data.validation))

    def judged(self, name: str) -> dict[str, float]:
        """Bytes of the file and both accuracies."""
        return {
            "bytes": (self.run.workdir.path / f"{name}.cjx").stat().st_size,
            "validation_accuracy": self.validation(name),
            "test_accuracy": accuracy(self.run.model, self.params(name), self.run.data.test()),
        }

    def weights(self, name: str) -> int:
        """Non-zero weights of all kernels."""
        leaves = trees.leaves(self.params(name)).items()
        return sum(int(np.count_nonzero(leaf)) for path, leaf in leaves if path.endswith("kernel"))

    def rules(self, kind: str, ratio: float) -> dict[str, Any]:
        """The sets of a rung."""
        return rules(self.run.config, kind, ratio, phases.shapes(self.run.model), self.run.data.classes)


def _scheme(networks: _Networks, scheme: Scheme, weights: int) -> dict[str, Any]:
    config = networks.run.config
    rungs: list[dict[str, Any]] = [
        {
            "name": rung(scheme.kind, ratio),
            "asked": ratio,
            "weights": networks.weights(rung(scheme.kind, ratio)),
            "ratio": weights / networks.weights(rung(scheme.kind, ratio)),
            "validation_accuracy": networks.validation(rung(scheme.kind, ratio)),
        }
        for ratio in scheme.ratios
    ]
    chosen = best(networks.run, scheme, networks.validation)
    found = next(row for row in rungs if row["name"] == chosen)
    least = networks.validation(DENSE) - config.tolerance
    sets = networks.rules(scheme.kind, found["asked"])
    files = []
    for bits in (*config.bits, FLOAT):
        name = chosen if bits == FLOAT else quantized_name(scheme.kind, bits)
        files.append(
            {
                "name": name,
                "bits": bits,
                "weights": networks.weights(name),
                "formats": formats(networks.params(name), sets, bits),
                "within": networks.validation(name) >= least,
                **networks.judged(name),
            }
        )
    return {
        "kind": scheme.kind,
        "rungs": rungs,
        "chosen": chosen,
        "asked": found["asked"],
        "weights": found["weights"],
        "ratio": found["ratio"],
        "within": found["validation_accuracy"] >= least,
        "files": files,
    }


def _latency(networks: _Networks, schemes: Sequence[Record]) -> dict[str, Any]:
    """Milliseconds of the dense and of every chosen network in packed form, on this machine, all in turns."""
    config, model = networks.run.config, networks.run.model
    x = jnp.zeros((config.latency_batch, *model.input_shape))
    dense = jax.jit(model.apply)
    everything = jax.tree.map(jnp.asarray, networks.params(DENSE))
    calls: list[Any] = [lambda: dense(everything, x)]
    counts = []
    for scheme in schemes:
        params = jax.tree.map(jnp.asarray, networks.params(scheme["chosen"]))
        sets = networks.rules(scheme["kind"], scheme["asked"])
        packed = runtime.pack(params, sets, batch=config.latency_batch)
        counts.append(sum(map(runtime.is_packed, jax.tree.leaves(packed, is_leaf=runtime.is_packed))))
        apply = jax.jit(lambda packed, x: interop.packed_apply(model.module, packed, x))
        calls.append(lambda apply=apply, packed=packed: apply(packed, x))
    found = cost.take_turns(calls, repeats=config.latency_repeats)
    return {
        "batch": config.latency_batch,
        "cores": os.cpu_count(),
        "load": found[0].load,
        "dense_milliseconds": 1e3 * found[0].median,
        "schemes": [
            {"kind": scheme["kind"], "milliseconds": 1e3 * timing.median, "packed": count}
            for scheme, timing, count in zip(schemes, found[1:], counts, strict=True)
        ],
    }


def headline(found: Record) -> str:
    """The lines a person reads first: ratio, accuracy and file sizes by kind."""
    dense = found["dense"]
    widths = [file["bits"] for file in found["schemes"][0]["files"]]
    lines = [
        f"dense: {dense['weights']:,} weights, {size(dense['bytes'])}, test {percent(dense['test_accuracy'])}",
        " " * 20 + "ratio    test" + "".join(f"{bits:>8} bit" for bits in widths) + "   (bytes of the file)",
    ]
    for scheme in found["schemes"]:
        files = "".join(f"{file['bytes']:>11,}{' ' if file['within'] else '*'}" for file in scheme["files"])
        test = percent(scheme["files"][-1]["test_accuracy"])
        lines.append(f"{LABELS[scheme['kind']]:<20}{times(scheme['ratio']):>5} {test:>8}{files}")
    lines.append("* loses more than the tolerance on the validation split")
    return "\n".join(lines)


def html(found: Record) -> str:
    """The page as text."""
    config = found["config"]
    title = f"{config['model']} on {found['dataset']}: structured or not?"
    widths = [file["bits"] for file in found["schemes"][0]["files"]]

    def at(bits: int, scheme: Record) -> Record:
        return next(file for file in scheme["files"] if file["bits"] == bits)

    def bytes_column(bits: int) -> report.Column:
        return (f"{bits} bit", lambda r: f"{at(bits, r)['bytes']:,} ({percent(at(bits, r)['test_accuracy'])})")

    speed = {
        row["kind"]: found["latency"]["dense_milliseconds"] / row["milliseconds"] for row in found["latency"]["schemes"]
    }
    kinds: tuple[report.Column, ...] = (
        ("kind", lambda r: LABELS[r["kind"]]),
        ("weights", lambda r: count(r["weights"])),
        ("ratio", lambda r: times(r["ratio"])),
        ("validation", lambda r: percent(r["files"][-1]["validation_accuracy"])),
        ("test", lambda r: percent(r["files"][-1]["test_accuracy"])),
        ("within the tolerance", lambda r: "yes" if r["within"] else "no"),
        ("single weights over it", lambda r: times(r["advantage"])),
        ("speed, packed", lambda r: f"{speed[r['kind']]:.2f}×"),
    )
    advantages = [
        {"kind": scheme["kind"], "codec": codec, "row": {bits: needed(scheme, codec, bits) for bits in widths}}
        for scheme in found["schemes"]
        if "required" in scheme
        for codec in CODECS
    ]

    def needed_column(bits: int) -> report.Column:
        return (f"{bits} bit", lambda r: "never" if math.isnan(r["row"][bits]) else times(r["row"][bits]))

    formats_ = [
        {
            "kind": scheme["kind"],
            "codec": codec,
            "row": {file["bits"]: file["formats"][codec] for file in scheme["files"]},
        }
        for scheme in found["schemes"]
        for codec in (*CODECS, "native")
    ]

    def format_column(bits: int) -> report.Column:
        return (f"{bits} bit", lambda r: size(r["row"][bits] / 8))

    ladder = [{**row, "kind": scheme["kind"]} for scheme in found["schemes"] for row in scheme["rungs"]]
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{found['dense']['weights']:,} weights, dense test accuracy {percent(found['dense']['test_accuracy'])} "
        f"(validation {percent(found['dense']['validation_accuracy'])}). Every kind of sparsity climbs its ladder by "
        f"the same solver; the last rung that loses at most {100 * config['tolerance']:g} points of validation "
        "accuracy is quantized to every number of bits.</p>",
        f'<p class="soft">{report.circumstances(found)}</p>',
        *report.picture(
            "Crossover",
            crossover(found),
            "Left: how many times fewer weights non-structured pruning needs than the structured network for equal "
            "storage, by codec; dashed, what training reached. Right: whole files as written.",
        ),
        "<h2>Best rung of each kind</h2>",
        report.table(kinds, found["schemes"], ("kind", "within the tolerance")),
        f'<p class="soft">Speed: batch {found["latency"]["batch"]}, measured on {found["latency"]["cores"]} cores, '
        f"dense {number(found['latency']['dense_milliseconds'])} ms.</p>",
        "<h2>Bytes of the files (test accuracy)</h2>",
        report.table((("kind", lambda r: LABELS[r["kind"]]), *map(bytes_column, widths)), found["schemes"], ("kind",)),
        "<h2>Required advantage</h2>",
        report.table(
            (
                ("against", lambda r: LABELS[r["kind"]]),
                ("single weights by", lambda r: CODEC_LABELS[r["codec"]]),
                *map(needed_column, widths),
            ),
            advantages,
            ("against", "single weights by"),
        ),
        "<h2>Kernels by every format</h2>",
        report.table(
            (
                ("kind", lambda r: LABELS[r["kind"]]),
                ("format", lambda r: CODEC_LABELS[r["codec"]]),
                *map(format_column, widths),
            ),
            formats_,
            ("kind", "format"),
        ),
        "<h2>Ladders</h2>",
        report.table(
            (
                ("kind", lambda r: LABELS[r["kind"]]),
                ("asked", lambda r: times(r["asked"])),
                ("ratio", lambda r: times(r["ratio"])),
                ("validation", lambda r: percent(r["validation_accuracy"])),
            ),
            ladder,
            ("kind",),
        ),
        "<details><summary>Configuration</summary>",
        f"<pre>{escape(json.dumps(config, indent=2))}</pre></details>",
    ]
    return report.page(title, body)
