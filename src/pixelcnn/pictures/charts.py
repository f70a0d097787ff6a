"""Charts as SVG."""

__all__ = ["Drawing", "bars", "curves"]

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: color-blind readers can tell the colors apart, on light and dark pages.
COLORS, MARKERS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"), "os^Dv*"
PAGE_INK = "#010203"  # placeholder for the text color of the page, which matplotlib cannot name
INKS = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), PAGE_INK)
CHART_STYLE: dict[Any, Any] = INKS | {
    "svg.fonttype": "none",
    "svg.hashsalt": "pixelcnn",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


class Drawing(NamedTuple):
    """A chart, as an SVG in the text color of the page and as a PNG file."""

    svg: str
    png: bytes


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Drawing:
    """Draw bits per dimension over minutes of training.

    Args:
        histories: name and points of each line; points have `seconds` and `bits_per_dim`, as in `history.jsonl`.
    """

    def draw(axes: "Axes") -> None:
        for i, (name, points) in enumerate(histories.items()):
            minutes, bits = [p["seconds"] / 60 for p in points], [p["bits_per_dim"] for p in points]
            look = {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
            axes.plot(minutes, bits, label=name, markevery=max(1, len(points) // 12), **look)
        axes.set(xlabel="minutes of training, for each factor", ylabel="bits per dimension")
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.grid(axis="y", alpha=0.2)
        axes.legend()

    return _draw_chart(draw, 3.0, f"Line chart of bits per dimension over minutes: {', '.join(histories)}")


def bars(
    values: Mapping[str, float], label: str = "bits per dimension", *, digits: int = 2, log: bool = False
) -> Drawing:
    """Draw a horizontal bar for each name, the first on top.

    Args:
        values: value of each bar, above 0.
        label: quantity and unit, for the axis.
        digits: digits after the decimal point.
        log: use a logarithmic scale, for values of several orders of magnitude.
    """

    def draw(axes: "Axes") -> None:
        drawn = axes.barh(list(values), list(values.values()), 0.7, color=COLORS[0], log=log)
        axes.bar_label(drawn, fmt=f"%.{digits}f", padding=4)
        least, most = min(values.values()), max(values.values())
        axes.set(xlabel=label, xlim=(least / 3, 5 * most) if log else (0, 1.15 * most))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)

    figures = ", ".join(f"{name} {value:.{digits}f}" for name, value in values.items())
    return _draw_chart(draw, 0.8 + 0.32 * len(values), f"Bar chart of {label}: {figures}")


def _draw_chart(draw: Callable[["Axes"], None], height: float, description: str) -> Drawing:
    """Draw a chart `height` inches high in the text color and font of the page, narrow enough for a phone."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    file, png = io.StringIO(), io.BytesIO()
    with rc_context(CHART_STYLE):
        figure = Figure(figsize=(5.2, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"])
        )
        figure.savefig(png, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(PAGE_INK, "currentColor")
    svg = re.sub(r' id="[a-z]+_\d+"', "", svg)  # ids would repeat in every chart of a page
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
    return Drawing(svg, png.getvalue())
