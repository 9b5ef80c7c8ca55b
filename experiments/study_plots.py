"""The crossover plot of `experiments.storage_study`."""

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from experiments import style
from experiments.study_config import LABELS, WEIGHTS
from experiments.study_costs import CODECS

Record = Mapping[str, Any]
CODEC_LABELS = {
    "relative": "relative index",
    "csr": "CSR",
    "bitmap": "bitmap",
    "entropy": "entropy-coded positions",
    "native": "own format",
}


@style.styled
def crossover(found: Record) -> Figure:
    """Required advantage by bits against filters and columns (or the first other kind), and bytes of the files."""
    figure, axes = style.new_figure(9.2, 3.6, 1, 2)
    left, right = axes[0]
    rivals = [scheme for scheme in found["schemes"] if scheme["kind"] != WEIGHTS]
    rival = next((scheme for scheme in rivals if scheme["kind"] == "filters"), rivals[0])
    widths = [file["bits"] for file in rival["files"]]
    places = range(len(widths))
    for codec, colour in zip(CODECS, style.colours(list(CODECS)), strict=True):
        ratios = [needed(rival, codec, bits) for bits in widths]
        left.plot(places, ratios, "o-", color=colour, markersize=4, linewidth=1.3, label=CODEC_LABELS[codec])
    left.axhline(rival["advantage"], color="black", linestyle="--", linewidth=1)
    left.annotate(
        f"reached at equal accuracy: {rival['advantage']:.2g}×",
        (len(widths) - 1, rival["advantage"]),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
    )
    left.set_ylabel(f"required ratio over {LABELS[rival['kind']]}")
    left.set_title("advantage that single weights need")
    for scheme, colour in zip(found["schemes"], style.colours([s["kind"] for s in found["schemes"]]), strict=True):
        right.plot(
            places,
            [file["bytes"] for file in scheme["files"]],
            "o-",
            color=colour,
            markersize=4,
            linewidth=1.3,
            label=LABELS[scheme["kind"]],
        )
    right.set_ylabel("bytes of the file")
    right.set_title("files")
    for ax, steps, text in ((left, (1, 1.5, 2, 3, 5, 7), "{:g}×"), (right, (1, 2, 5), "{:,.0f}")):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=steps))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _, text=text: text.format(value)))
        ax.set_xticks(list(places), [str(bits) for bits in widths])
        ax.set_xlabel("bits per weight")
        style.legend(ax)
    return figure


def needed(scheme: Record, codec: str, bits: int) -> float:
    """The required advantage, nan where no ratio is enough; JSON has made texts of the numbers of bits."""
    row = scheme["required"][codec]
    value = row.get(bits, row.get(str(bits)))
    return math.nan if value is None else value
