"""SVG pictures by matplotlib, made fit for a page: no style that its security policy forbids, ids of their own."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

from deepscan.installing import needing_packages
from deepscan.runtime.system.library_files import matplotlib_files_removed
from deepscan.wording import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

SVG_MARK: Final = b"deepscan evaluate"  # by this a plot is known again
INK: Final = "#1b1f24"
GRID: Final = "#c9ced6"
# Colors of detectors, for white paper: those of Okabe and Ito (2008), darkened to a contrast of 4.5 where they are
# light. Lines and markers tell the detectors apart as well.
PAINTS: Final = ("#0072b2", "#b84a00", "#007d5b", "#a8487f", "#7a5f00", "#5b5b5b")
# The same for dark paper.
DARK: Final = {
    INK: "#e6e9ee",
    GRID: "#444c56",
    "#0072b2": "#56b4e9",
    "#b84a00": "#ff9a4d",
    "#007d5b": "#2fc79a",
    "#a8487f": "#e89ac7",
    "#7a5f00": "#e6c84f",
    "#5b5b5b": "#bdbdbd",
}
LONGEST: Final = 30  # signs of a name
NAMESPACE: Final = "http://www.w3.org/2000/svg"
XLINK: Final = "{http://www.w3.org/1999/xlink}href"
FONT: Final = re.compile(r"^(?:(?:normal|italic|oblique|bold|\d00)\s+)*([\d.]+)px\s+(.+)$")


def short(name: str) -> str:
    """Return a name as plots show it: printable, and with its middle left out if it is long."""
    name = printable(name)
    half = (LONGEST - 3) // 2
    return name if len(name) <= LONGEST else f"{name[:half]}...{name[-half:]}"


@contextmanager
def drawing() -> Iterator[None]:
    """Within this, matplotlib draws text as it is, everything alike each time, and leaves no files behind."""
    with needing_packages("Drawing plots", "evaluate"), matplotlib_files_removed():
        import matplotlib.figure
    settings: dict[Any, Any] = {
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": "medium",
        "font.family": "DejaVu Sans",
        "font.size": 9.0,
        "grid.color": GRID,
        "svg.fonttype": "none",
        "svg.hashsalt": "deepscan",
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # A browser has other fonts, so that signs that matplotlib's font lacks are shown.
        warnings.filterwarnings("ignore", message=".*Glyph .*missing from", category=UserWarning)
        yield


def svg_of(figure: Figure, *, name: str, title: str) -> str:
    """Return a figure as `clean_svg` makes it."""
    picture = BytesIO()
    figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})
    return clean_svg(picture.getvalue(), name=name, title=title)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches, whose parts find their places by themselves."""
    from matplotlib.figure import Figure as New

    return New(figsize=(width, height), layout="constrained")


def paint(number: int) -> str:
    """Return the color of a detector by its number."""
    return PAINTS[number % len(PAINTS)]


def add_legend(figure: Figure, lines: Sequence[Line2D], names: Sequence[str]) -> None:
    """Put the names of lines below a figure, set so that matplotlib does not hide those that begin with `_`."""
    numbers = [str(number) for number in range(len(lines))]
    legend = figure.legend(lines, numbers, loc="outside lower left", frameon=False, handlelength=3.5)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)


def clean_svg(data: bytes, *, name: str, title: str) -> str:
    """Return a picture as an element for a page.

    Styles become attributes, which need no permission and which the style of a page overrides; ids that nothing refers
    to are left out, and the others begin with the name of the picture; metadata is left out.

    Args:
        data: the SVG, as matplotlib writes it.
        name: what the ids begin with.
        title: what a screen reader reads.
    """
    root = ElementTree.fromstring(data)  # deepscan's own plot, not a stranger's file
    _drop(root, {"metadata", "style"})
    used = set(re.findall(rb'(?:url\(#|href="#)([^)"]+)', data))
    for element in root.iter():
        attributes = element.attrib
        for key, value in _styles(attributes.pop("style", "")):
            attributes[key] = value
        identity = attributes.pop("id", None)
        if identity is not None and identity.encode() in used:
            attributes["id"] = f"{name}-{identity}"
        reference = attributes.pop(XLINK, None)
        if reference is not None:
            attributes["href"] = f"#{name}-{reference[1:]}"
        for key in ("clip-path", "fill"):
            if attributes.get(key, "").startswith("url(#"):
                attributes[key] = attributes[key].replace("url(#", f"url(#{name}-")
    root.attrib.pop("height", None)
    root.attrib.pop("width", None)
    root.attrib.update({"role": "img", "aria-labelledby": f"{name}-title", "stroke-linejoin": "round"})
    label = ElementTree.Element(f"{{{NAMESPACE}}}title", {"id": f"{name}-title"})
    label.text = title
    label.tail = "\n"
    root.insert(0, label)
    root.insert(1, ElementTree.Comment(f" {SVG_MARK.decode()} "))
    ElementTree.register_namespace("", NAMESPACE)
    return ElementTree.tostring(root, encoding="unicode")


def _styles(text: str) -> list[tuple[str, str]]:
    """Return the declarations of a style as attributes; `font` has none and becomes two."""
    found = []
    for declaration in filter(None, (each.strip() for each in text.split(";"))):
        key, _, value = declaration.partition(":")
        key, value = key.strip(), value.strip()
        font = FONT.match(value) if key == "font" else None
        if font is not None:
            found += [("font-size", font[1]), ("font-family", "DejaVu Sans, Verdana, sans-serif")]
        else:
            found.append((key, value))
    return found


def _drop(element: ElementTree.Element, names: set[str]) -> None:
    for child in list(element):
        if child.tag in {f"{{{NAMESPACE}}}{name}" for name in names}:
            element.remove(child)
        else:
            _drop(child, names)
