"""Pictures as SVG text: what is drawn follows the page's colours, light or dark, and every name is text."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

WIDTH = 1000
"""Of every picture, in its own units."""

LETTER = 6.6
"""Width of an average letter at the size of the text, 12 units: SVG does not break lines by itself."""

_STYLE = (
    "svg{color-scheme:light dark}"
    "text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:light-dark(#1b1e24,#e6e8ec)}"
    ".quiet{fill:light-dark(#5a6270,#a3abb8)}.page{fill:light-dark(#fff,#16181c)}.b{font-weight:600}"
    ".line{stroke:light-dark(#d8dce2,#3a3f48);stroke-width:1}.path{fill:light-dark(#111,#fff)}"
    ".arrow{stroke:light-dark(#5a6270,#a3abb8);stroke-width:.6}"
)


def rectangle(x: float, y: float, width: float, height: float, fill: str, *, title: str = "", **further: str) -> Markup:
    """A box; ``title`` shows under the pointer; ``further`` are attributes, as ``class_``."""
    inside = Markup("<title>{}</title>").format(title) if title else ""
    place = f'x="{x:.2f}" y="{y:.2f}" width="{max(width, 0):.2f}" height="{height:.2f}"'
    attributes = Markup("").join(Markup(' {}="{}"').format(name.rstrip("_"), value) for name, value in further.items())
    return Markup(f"<rect {place}") + Markup(' fill="{}"{}>{}</rect>').format(fill, attributes, inside)


def text(x: float, y: float, words: str, *, class_: str = "", anchor: str = "start", fill: str = "") -> Markup:
    """Words that begin (or end, or have their middle) at a point of their base line."""
    colour = Markup(' style="fill:{}"').format(fill) if fill else ""
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}"{}>{}</text>').format(
        f"{x:.1f}", f"{y:.1f}", class_, anchor, colour, words
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str = "line") -> Markup:
    """A straight line."""
    return Markup('<line x1="{:.2f}" y1="{:.2f}" x2="{:.2f}" y2="{:.2f}" class="{}"/>').format(x1, y1, x2, y2, class_)


def picture(parts: Iterable[Markup], height: float, title: str) -> Markup:
    """A whole picture, to stand in a page or in a separate file."""
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img" aria-label="{}"><style>{}</style>'
    ).format(WIDTH, f"{height:.0f}", title, Markup(_STYLE))
    return head + Markup("\n").join([Markup(""), *parts]) + Markup("\n</svg>\n")


def contrast(fill: str) -> str:
    """Black or white, whichever is legible on a colour ``#rrggbb``."""
    red, green, blue = (int(fill[k : k + 2], 16) for k in (1, 3, 5))
    return "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"


def width_of(words: str) -> float:
    """About how wide words are."""
    return LETTER * len(words)
