"""A picture of the dashboard (SVG), drawn from what a Prometheus answers to its queries: each panel in its place, with its lines.

For a person to look at: tests only know that there is data, not whether the panel tells something.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

_COLUMN, _ROW, _PAD = 64, 38, 6  # pixels of the dashboard's grid of 24 columns
_COLOURS = ("#56a64b", "#3274d9", "#e02f44", "#f2cc0c", "#8f3bb8", "#ff780a", "#37872d", "#1f60c4")
_MOST_NAMED = 6


class Line(NamedTuple):
    """One series: its name in the legend, and its points as unix seconds and value."""

    name: str
    points: Sequence[tuple[float, float]]


Ask = Callable[[str], Sequence[tuple[Mapping[str, str], Sequence[tuple[float, float]]]]]


def drawn(dashboard: Mapping[str, Any], ask: Ask) -> str:
    """The picture; ``ask`` gives labels and points of each series of a query, as the panel has it."""
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    size = f'width="{24 * _COLUMN}" height="{bottom * _ROW}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#f4f5f5"/>',
    ]
    for panel in dashboard["panels"]:
        lines = [
            Line(_legend(target.get("legendFormat", ""), labels), points)
            for target in panel.get("targets", [])
            for labels, points in ask(target["expr"])
        ]
        parts += _panel(panel, lines)
    return "\n".join([*parts, "</svg>"])


def _legend(pattern: str, labels: Mapping[str, str]) -> str:
    for name, value in labels.items():
        pattern = pattern.replace("{{" + name + "}}", value)
    return pattern or labels.get("source", "")


def _panel(panel: Mapping[str, Any], lines: Sequence[Line]) -> list[str]:
    grid = panel["gridPos"]
    x, y = grid["x"] * _COLUMN + 3, grid["y"] * _ROW + 3
    width, height = grid["w"] * _COLUMN - 6, grid["h"] * _ROW - 6
    if panel["type"] == "row":
        return [_text(x + _PAD, y + 22, panel["title"], weight="bold", size=15)]
    parts = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="white" stroke="#ddd"/>']
    parts.append(_text(x + _PAD, y + 16, panel["title"], weight="bold"))
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
    if not lines:
        return [*parts, _text(x + _PAD, y + height / 2, "No data", colour="#e02f44", size=15)]
    if panel["type"] in {"stat", "table"}:
        for number, line in enumerate(lines[:4]):
            parts.append(_text(x + _PAD, y + 45 + 36 * number, _number(line.points[-1][1], unit), size=22))
            parts.append(_text(x + _PAD, y + 59 + 36 * number, line.name, size=10))
        return parts
    return parts + _graph(lines, unit, x + _PAD, y + 24, width - 2 * _PAD, height - 34)


def _graph(lines: Sequence[Line], unit: str, x: float, y: float, width: float, height: float) -> list[str]:
    known = [point for line in lines for point in line.points if math.isfinite(point[1])]
    named = lines[:_MOST_NAMED]
    height -= 14 * len(named)
    low, high = min([0.0, *(value for _, value in known)]), max([0.0, *(value for _, value in known)])
    first, last = (min(t for t, _ in known), max(t for t, _ in known)) if known else (0.0, 1.0)
    span, time = (high - low) or 1.0, (last - first) or 1.0
    parts = [
        f'<line x1="{x}" y1="{y + height}" x2="{x + width}" y2="{y + height}" stroke="#bbb"/>',
        _text(x, y + 8, _number(high, unit), size=9, colour="#888"),
    ]
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        dots = " ".join(
            f"{x + (t - first) / time * width:.1f},{y + height - (value - low) / span * height:.1f}"
            for t, value in line.points
            if math.isfinite(value)
        )
        parts.append(f'<polyline points="{dots}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if number < _MOST_NAMED:
            said = f"{line.name}: {_number(line.points[-1][1], unit)}"
            parts.append(_text(x, y + height + 14 * (number + 1), said, size=10, colour=colour))
    return parts


def _number(value: float, unit: str) -> str:
    return (f"{value:.4g}" if math.isfinite(value) else str(value)) + (f" {unit}" if unit else "")


def _text(
    x: float, y: float, text: str, *, weight: str = "normal", size: int = 11, colour: str = "#222"
) -> str:
    return f'<text x="{x}" y="{y}" font-weight="{weight}" font-size="{size}" fill="{colour}">{html.escape(text)}</text>'
