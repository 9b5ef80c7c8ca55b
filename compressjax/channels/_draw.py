"""A net as a table and as a picture."""

import colorsys
from collections.abc import Mapping, Sequence
from html import escape

from compressjax.channels._groups import Group
from compressjax.channels._terms import Term

Number = int | float


def table(groups: Sequence[Group], sentences: Mapping[str, Sequence[str]]) -> str:
    """Every group with the axes it occurs on, then every axis that is kept whole.

    Args:
      groups: The groups.
      sentences: Leaf path to what `Net.why` says of each axis.
    """
    lines = [f"{len(groups)} group{'s' * (len(groups) != 1)} in {len(sentences)} leaves"]
    width = max((len(group.name) for group in groups), default=0)
    for group in groups:
        places = _some([f"{m.path}[{m.axis}]={m.term}" for m in group.members], 8)
        lines.append(f"{group.name:{width}}  {group.size} members of {group.entries} parameters: {', '.join(places)}")
        lines += [f"{'':{width}}  note: {text}" for text in _some(list(group.notes), 3)]
    whole = [s for path in sentences for s in sentences[path] if " is kept whole: " in s or " is unused: " in s]
    return "\n".join([*lines, *dict.fromkeys(whole)])


def _some(texts: list[str], most: int) -> list[str]:
    return texts if len(texts) <= most else [*texts[: most - 1], f"and {len(texts) - most + 1} more"]


def picture(groups: Sequence[Group], axes: Mapping[str, Sequence[Term]]) -> str:
    """One row per leaf, one strip per axis: pieces side by side, factors below each other, fixed parts grey.

    Args:
      groups: The groups; each gets a colour.
      axes: Leaf path to the terms of its axes.
    """
    colours = {group.name: _colour(number) for number, group in enumerate(groups)}
    left, strip, row = 12 + 7 * max((len(path) for path in axes), default=0), 150, 34
    body = []
    for number, (path, terms) in enumerate(axes.items()):
        y = 10 + number * row
        body.append(f'<text x="6" y="{y + 15}">{escape(path)}</text>')
        for axis, term in enumerate(terms):
            x = left + axis * (strip + 10)
            body += _strip(term, x, y, strip, 20, colours)
            body.append(f'<text x="{x}" y="{y + 30}" font-size="9">{escape(f"{term} = {term.size}")}</text>')
    width = left + (strip + 10) * max((len(terms) for terms in axes.values()), default=0)
    height = 20 + row * len(axes)
    style = 'font-family="monospace" font-size="11"'
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n' + "\n".join(body) + "\n</svg>\n"


def _strip(term: Term, x: Number, y: Number, width: Number, height: Number, colours: Mapping[str, str]) -> list[str]:
    """The rectangles of one axis."""
    if term.kind == "sum":
        out = []
        for part in term.parts:
            share = width * part.size / term.size
            out += _strip(part, x, y, share, height, colours)
            x += share
        return out
    if term.kind == "product":
        step = height / len(term.parts)
        return [r for i, part in enumerate(term.parts) for r in _strip(part, x, y + i * step, width, step, colours)]
    title = f"<title>{escape(str(term))}: {term.size}</title>"
    box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return [f'<rect {box} fill="{colours.get(term.name, "#dddddd")}" stroke="white">{title}</rect>']


def _colour(number: int) -> str:
    """Colours far apart: steps of the golden angle around the colour wheel."""
    red, green, blue = colorsys.hls_to_rgb((0.58 + 0.381966 * number) % 1, 0.55, 0.6)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
