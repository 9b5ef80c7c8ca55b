"""Records of `experiments.storage_study` as one table per configuration: a row per kind of sparsity.

A record is the ``report.json`` of a run under the name ``results/<config>-seed<k>.json``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.records import Record
from experiments.study_config import LABELS
from experiments.text import percent, times


def to_markdown(records: Sequence[Record]) -> str:
    """One table per record; empty for no records."""
    parts = []
    for record in records:
        report = record.report
        dense, latency = report["dense"], report["latency"]
        widths = [file["bits"] for file in report["schemes"][0]["files"]]
        speed = {row["kind"]: latency["dense_milliseconds"] / row["milliseconds"] for row in latency["schemes"]}
        head = ["sparsity", "ratio", "test", *(f"bytes, {bits} bit" for bits in widths), "speed, packed"]
        lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
        for scheme in report["schemes"]:
            cells = [
                LABELS[scheme["kind"]] + ("" if scheme["within"] else " (over the tolerance)"),
                times(scheme["ratio"]),
                percent(scheme["files"][-1]["test_accuracy"]),
                *(_file(file) for file in scheme["files"]),
                f"{speed[scheme['kind']]:.2f}×",
            ]
            lines.append("| " + " | ".join(cells) + " |")
        title = (
            f"`{record.config}`, seed {record.seed}: dense {percent(dense['test_accuracy'])} "
            f"(validation {percent(dense['validation_accuracy'])}), {dense['weights']:,} weights, "
            f"{dense['bytes']:,} bytes; tolerance {100 * report['config']['tolerance']:g} points of validation accuracy"
        )
        parts.append(f"{title}\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _file(file: Mapping[str, Any]) -> str:
    """Bytes; in brackets where quantization has cost more than the tolerance."""
    return f"{file['bytes']:,}" if file["within"] else f"({file['bytes']:,})"
