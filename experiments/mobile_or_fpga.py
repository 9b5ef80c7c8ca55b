"""Mobile or FPGA?  What compression buys on each: latency, energy and frames per second per watt in one table.

    python -m experiments.mobile_or_fpga --model=resnet20 [--batch=1] [--density=0.25] [--block=8x4] [--measure]
        [--break_even] [--json=FILE] [--figure=FILE]

Rows are the patterns of pruned weights (none; the given blocks; the blocks widened until they fill the device) times
the operand widths.  Columns are the devices of `experiments.platforms`, labelled modelled, and with ``--measure`` this
machine, which has no power meter: of the host only times are known.  Only costs are computed here, no accuracy.

The question is that of G. Yuan et al., "Mobile or FPGA? A comprehensive evaluation on energy efficiency and a unified
optimization framework", ACM TECS 2022 (arXiv 2106.09166); the models and all numbers are this library's.
"""

import dataclasses
import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import app, flags, logging

if TYPE_CHECKING:  # the library is imported when there is something to compute: --help stays fast
    import numpy as np

    from compressjax import cost
    from compressjax.zoo import Model
    from experiments.platforms import Device

PRECISIONS = {"float32": 32, "16-bit": 16, "int8": 8, "4-bit": 4}
RATIOS = (1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 32.0)  # pruning ratios at which break-even is looked for


def run(
    model: str,
    *,
    batch: int = 1,
    density: float = 0.25,
    block: tuple[int, int] = (8, 4),
    keep_ends: bool = True,
    measure: bool = False,
    break_even: bool = False,
    repeats: int = 31,
) -> dict[str, Any]:
    """Costs a network in every variant on every device.

    Args:
      model: A network of the zoo.
      batch: Inputs per call.
      density: Share of the weights that pruned layers keep.
      block: Filters and input channels of the blocks in which weights are pruned.
      keep_ends: Leave the first and the last layer dense, and at 8 bits at least.  Grouped convolutions and products
        of activations stay dense in any case.
      measure: Time this machine as well.
      break_even: Add the pruning ratios from which pruning pays, layer by layer.
      repeats: Rounds of each measurement.

    Returns:
      JSON-ready; `experiments.mobile_or_fpga_report.to_text` prints it.

    Raises:
      ValueError: If an argument is out of range or the zoo has no such network.
    """
    _check(batch, density, block, repeats)
    import numpy as np

    from compressjax import cost, zoo
    from experiments import platforms

    built = zoo.build(model)
    layers = _layers(built, batch)
    ends = np.zeros(len(layers), bool)
    ends[[0, -1]] = keep_ends
    pruned = ~ends & (layers.groups == 1) & np.array([kind != "product" for kind in layers.kinds])
    if not pruned.any():
        raise ValueError(
            f"{model} has no layer to prune: pass --nokeep_ends to prune its first and last layer as well."
        )
    devices = dict(platforms.DEVICES) | ({"host": platforms.host(repeats)} if measure else {})
    record: dict[str, Any] = {
        "model": model,
        "batch": batch,
        "macs": float(cost.macs(layers).sum()) / batch,
        "layers": len(layers),
        "pruned_layers": int(pruned.sum()),
        "density": density,
        "kept": float((cost.parameters(layers) * np.where(pruned, density, 1)).sum() / cost.parameters(layers).sum()),
        "block": list(block),
        "keep_ends": keep_ends,
        "devices": {name: _describe(device) for name, device in devices.items()},
        "rows": [],
    }
    for name, device in devices.items():
        record["rows"] += _rows(name, device, layers, ends, pruned, density, block, batch)
    if measure:
        record["host"] = _whole(built, batch, repeats)
    if break_even:
        record["ratios"] = list(RATIOS)
        record["break_even"] = _break_even(layers, np.flatnonzero(pruned), devices, block)
    return record


def _check(batch: int, density: float, block: Sequence[int], repeats: int) -> None:
    if batch < 1 or repeats < 1:
        raise ValueError(f"batch is {batch} and repeats is {repeats}; both must be at least 1.")
    if not 0 < density < 1:
        raise ValueError(f"density is {density}; it must be between 0 and 1, the share of weights that stay.")
    if len(block) != 2 or min(block) < 1:
        raise ValueError(f"block is {tuple(block)}; it must be two positive numbers, filters and input channels.")


def _input(model: "Model", batch: int) -> Any:
    """Shape of a batch of images, or of sequences of tokens."""
    import jax

    return jax.ShapeDtypeStruct((batch, *model.input_shape), "float32" if len(model.input_shape) == 3 else "int32")


def _layers(model: "Model", batch: int) -> "cost.Layers":
    import jax

    from compressjax import cost

    return cost.layers(model.apply, jax.eval_shape(model.init, jax.random.key(0)), _input(model, batch))


def _describe(device: "Device") -> dict[str, Any]:
    platform = device.platform
    energy: Any = getattr(platform, "energy_model", None)
    return {
        "modelled": platform.modelled,
        "source": platform.source,
        "about": device.about,
        "energy_source": energy.source if energy else None,
        "static_watts": energy.static if energy else None,
        "energy_scale": energy.scale if energy else None,
    }


def _rows(
    name: str,
    device: "Device",
    layers: "cost.Layers",
    ends: "np.ndarray",
    pruned: "np.ndarray",
    density: float,
    block: tuple[int, int],
    batch: int,
) -> list[dict[str, Any]]:
    """All variants on one device, in one call, so that a host measures them in turns."""
    import numpy as np

    from compressjax import cost

    keys, variants = [], []
    for pattern in ("dense", "blocks", "fitted blocks"):
        for precision, bits in PRECISIONS.items():
            if bits not in device.fill:
                continue
            shape = device.fit(block, bits) if pattern == "fitted blocks" else block
            operands = np.where(ends, max(bits, 8), bits)
            variant = layers.replace(weight_bits=operands, activation_bits=operands)
            if pattern != "dense":
                share = np.where(pruned, density, 1.0)
                variant = variant.replace(density=share, block_outputs=shape[0], block_inputs=shape[1])
            keys.append((pattern, precision, shape))
            variants.append(variant)
    everything = cost.concatenate(variants)
    seconds = _totals(device.platform.latency(everything), len(variants))
    energy: Any = getattr(device.platform, "energy", None)
    joules = _totals(energy(everything), len(variants)) if energy else [None] * len(variants)
    return [
        {
            "device": name,
            "pattern": pattern,
            "precision": precision,
            "block": None if pattern == "dense" else list(shape),
            "modelled": device.platform.modelled,
            "milliseconds": 1e3 * time,
            "millijoules": None if heat is None else 1e3 * heat,
            "frames_per_second_per_watt": None if heat is None else batch / heat,
        }
        for (pattern, precision, shape), time, heat in zip(keys, seconds, joules, strict=True)
    ]


def _totals(per_layer: Any, variants: int) -> list[float]:
    import numpy as np

    return [float(total) for total in np.asarray(per_layer, np.float64).reshape(variants, -1).sum(1)]


def _whole(model: "Model", batch: int, repeats: int) -> dict[str, Any]:
    """The dense float32 network in one call, with all that lies between its contractions."""
    import jax
    import jax.numpy as jnp

    from compressjax import cost

    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(model.init, jax.random.key(0)))
    image = _input(model, batch)
    timing = cost.measure(model.apply, params, jnp.zeros(image.shape, image.dtype), repeats=repeats)
    return {
        "network_milliseconds": 1e3 * timing.median,
        "repeats": repeats,
        "load": timing.load,
        "cores": os.cpu_count(),
    }


def _break_even(
    layers: "cost.Layers", chosen: "np.ndarray", devices: Mapping[str, "Device"], block: tuple[int, int]
) -> list[dict[str, Any]]:
    """Break-even ratios of the distinct shapes among the chosen layers, as float32 matrix products."""
    import numpy as np

    from compressjax import cost

    kinds: dict[tuple[Any, ...], list[int]] = {}
    for i in chosen.tolist():
        numbers = (layers.positions[i], layers.window[i], layers.inputs[i], layers.outputs[i])
        kinds.setdefault(tuple(int(number) for number in numbers), []).append(i)
    products = cost.as_gemm(_take(layers, [members[0] for members in kinds.values()]))
    products = products.replace(weight_bits=32, activation_bits=32)
    out: list[dict[str, Any]] = [
        {
            "layer": layers.names[members[0]],
            "count": len(members),
            "shape": "{} x ({} x {}) -> {}".format(*shape),
            "ratios": [],
        }
        for shape, members in kinds.items()
    ]
    for name, device in devices.items():
        if not device.sees_blocks:
            continue
        # A block widened to the device, where that is another one.
        patterns = {"single weights": (1, 1), "blocks": block, "fitted blocks": device.fit(block, 32)}
        for pattern, (outputs, inputs) in patterns.items():
            if pattern == "fitted blocks" and (outputs, inputs) == tuple(block):
                continue
            kind = products.replace(block_outputs=outputs, block_inputs=inputs)
            ratios = cost.break_even(kind, device.platform, ratios=RATIOS)
            for row, ratio in zip(out, np.asarray(ratios).tolist(), strict=True):
                found = ratio if math.isfinite(ratio) else None
                row["ratios"].append({"device": name, "pattern": pattern, "ratio": found})
    return out


def _take(layers: "cost.Layers", chosen: Sequence[int]) -> "cost.Layers":
    """Some of the layers."""
    import jax
    import numpy as np

    columns = jax.tree.map(lambda column: np.asarray(column)[np.asarray(chosen)], layers)
    static = ("names", "kinds", "geometry", "weight_operands")
    return dataclasses.replace(columns, **{field: tuple(getattr(layers, field)[i] for i in chosen) for field in static})


def block_of(text: str) -> tuple[int, int]:
    """Reads ``"8x4"``: filters x input channels.

    >>> block_of("8x4")
    (8, 4)
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise ValueError(f"--block is {text!r}; it must be filters x channels, such as 8x4.")
    return int(match[1]), int(match[2])


def main(argv: list[str]) -> None:
    """Flag shell around `run`."""
    from experiments.launch import cache_compilations, refuse_arguments

    refuse_arguments(argv)
    values = flags.FLAGS
    logging.set_verbosity(logging.WARNING)  # JAX reports each backend that is not there
    cache_compilations()
    try:
        for file in (Path(name) for name in (values.json, values.figure) if name):
            if not file.parent.is_dir():
                raise ValueError(f"There is no folder {file.parent} for {file.name}.")
        record = run(
            values.model,
            batch=values.batch,
            density=values.density,
            block=block_of(values.block),
            keep_ends=values.keep_ends,
            measure=values.measure,
            break_even=values.break_even,
            repeats=values.repeats,
        )
        from experiments.mobile_or_fpga_report import to_text

        print(to_text(record))
        if values.json:
            Path(values.json).write_text(json.dumps(record, indent=1) + "\n")
        if values.figure:
            from experiments import mobile_or_fpga_plots, style

            file = Path(values.figure)
            file.write_bytes(style.render(mobile_or_fpga_plots.bars(record), file.suffix.lstrip(".") or "svg"))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_string("model", "resnet20", "A network of the zoo.")
    flags.DEFINE_integer("batch", 1, "Inputs per call.")
    flags.DEFINE_float("density", 0.25, "Share of the weights that pruned layers keep.")
    flags.DEFINE_string("block", "8x4", "Filters x input channels of the blocks in which weights are pruned.")
    flags.DEFINE_bool("keep_ends", True, "Leave the first and the last layer dense, and at 8 bits at least.")
    flags.DEFINE_bool("measure", False, "Time this machine as well.")
    flags.DEFINE_bool("break_even", False, "Print the pruning ratios from which pruning pays, layer by layer.")
    flags.DEFINE_integer("repeats", 31, "Rounds of each measurement.")
    flags.DEFINE_string("json", "", "File to write the record to.")
    flags.DEFINE_string("figure", "", "File to draw the bars to, .svg or .png.")
    app.run(main)
