"""The plot of "mobile or FPGA": milliseconds and frames per second per watt, one group of bars per scheme."""

import math

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from experiments.style import BLUE, GREEN, GREY, ORANGE, Record, new_figure, styled

SCHEMES = (
    ("dense", "float32"),
    ("dense", "16-bit"),
    ("dense", "int8"),
    ("blocks", "int8"),
    ("fitted blocks", "float32"),
    ("fitted blocks", "int8"),
    ("fitted blocks", "4-bit"),
)
COLOURS = {"mobile CPU": BLUE, "mobile GPU": GREEN, "FPGA": ORANGE, "host": GREY}


@styled
def bars(record: Record) -> Figure:
    """Two panels of bars, log x; measured bars are hatched, what is not known is left out.

    Args:
      record: From `experiments.mobile_or_fpga.run`.

    Returns:
      The figure.
    """
    figure, axes = new_figure(7.6, 4.6, columns=2, sharey=True)
    devices = list(record["devices"])
    found = {(row["pattern"], row["precision"], row["device"]): row for row in record["rows"]}
    outputs, inputs = record["block"]
    height = 0.8 / len(devices)
    for ax, key, title in (
        (axes[0, 0], "milliseconds", f"milliseconds, batch {record['batch']}"),
        (axes[0, 1], "frames_per_second_per_watt", "frames per second per watt"),
    ):
        for i, device in enumerate(devices):
            modelled = record["devices"][device]["modelled"]
            label = f"{device}, {'modelled' if modelled else 'measured'}"
            for j, scheme in enumerate(SCHEMES):
                value = found.get((*scheme, device), {}).get(key)
                if value is None:
                    continue
                place = j + (i - (len(devices) - 1) / 2) * height
                ax.barh(
                    place,
                    value,
                    height=0.92 * height,
                    color=COLOURS.get(device, GREY),
                    hatch=None if modelled else "////",
                    edgecolor="white",
                    linewidth=0,
                    label=label,
                )
                label = "_nolegend_"
        ax.set_xscale("log")
        smallest = min((row[key] for row in record["rows"] if row[key]), default=1.0)
        ax.set_xlim(left=10.0 ** (math.ceil(math.log10(smallest)) - 1))  # no bar without length
        ax.set_title(title)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
        ax.grid(visible=False, axis="y")
    names = {"blocks": f"{outputs}x{inputs} blocks"}
    axes[0, 0].set_yticks(range(len(SCHEMES)), [f"{names.get(p, p)}, {bits}" for p, bits in SCHEMES])
    axes[0, 0].invert_yaxis()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure
