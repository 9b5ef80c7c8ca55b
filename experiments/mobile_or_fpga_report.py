"""The printed tables of "mobile or FPGA", from its record alone."""

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]


def to_text(record: Record) -> str:
    """What the program prints: the table, what it rests on, and the break-even ratios if they were asked for.

    Args:
      record: From `experiments.mobile_or_fpga.run`.

    Returns:
      The text, without a final newline.
    """
    outputs, inputs = record["block"]
    ends = "; the first and the last layer stay dense, at 8 bits or more" if record["keep_ends"] else ""
    head = (
        f"{record['model']}, batch {record['batch']}, {record['macs'] / 1e6:,.1f} million multiply-adds per input\n"
        f"blocks: {record['density']:g} of the weights of {record['pruned_layers']} of {record['layers']} layers stay "
        f"({record['kept']:.1%} of all), in blocks of {outputs} x {inputs} (filters x channels);\n"
        f"fitted blocks: widened until they fill the device{ends}"
    )
    parts = [head, _table(record), _sources(record)]
    if record.get("break_even"):
        parts.append(_break_even_text(record))
    return "\n\n".join(parts)


def _table(record: Record) -> str:
    found = {(row["pattern"], row["precision"], row["device"]): row for row in record["rows"]}
    keys = dict.fromkeys((row["pattern"], row["precision"]) for row in record["rows"])
    lines = [["", ""], ["weights", "operands"], *(list(key) for key in keys)]
    columns = {"ms": "milliseconds", "mJ": "millijoules", "fps/W": "frames_per_second_per_watt"}
    for name, device in record["devices"].items():
        shown = columns if device["static_watts"] is not None else {"ms": "milliseconds"}
        cells = [list(shown)]
        cells += [[_number(found.get((*key, name), {}).get(field)) for field in shown.values()] for key in keys]
        _append(lines, record, name, cells)
    return _aligned(lines)


def _append(lines: list[list[str]], record: Record, device: str, cells: Sequence[Sequence[str]]) -> None:
    """Adds a device's columns to the lines of a table, below one heading that says whether they are modelled."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    label = f"{device}, {'modelled' if record['devices'][device]['modelled'] else 'measured'}"
    lines[0].append(label)
    for line, row in zip(lines[1:], cells, strict=True):
        line.append("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _number(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _sources(record: Record) -> str:
    lines = []
    for name, device in record["devices"].items():
        lines.append(f"{name}: {device['source']}; {device['about']}")
        if device["static_watts"] is not None:
            lines.append(
                f"  energy: {device['energy_source']}; all but static power x {device['energy_scale']:g}; "
                f"{device['static_watts']:g} W static, assumed"
            )
    if host := record.get("host"):
        lines.append(
            f"host: the whole dense float32 network in one call takes {_number(host['network_milliseconds'])} ms; "
            f"{host['repeats']} rounds, load {host['load']:.1f} on {host['cores']} cores; no power meter"
        )
    return "\n".join(lines)


def _break_even_text(record: Record) -> str:
    rows = record["break_even"]
    lines = [["", ""], ["layers", "positions x (window x inputs) -> outputs"]]
    lines += [[f"{row['count']} like {row['layer']}", row["shape"]] for row in rows]
    for name in dict.fromkeys(entry["device"] for entry in rows[0]["ratios"]):
        columns = [[entry for entry in row["ratios"] if entry["device"] == name] for row in rows]
        cells = [[entry["pattern"] for entry in columns[0]]]
        cells += [["never" if e["ratio"] is None else f"{e['ratio']:.2f}" for e in column] for column in columns]
        _append(lines, record, name, cells)
    last = f"{record['ratios'][-1]:g}"
    title = f"pruning ratio from which pruning pays, as float32 matrix products (never: not up to {last})"
    return f"{title}\n{_aligned(lines)}"
