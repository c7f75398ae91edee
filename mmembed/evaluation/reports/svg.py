"""Bars, curves and points as SVG text, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["bars", "curves", "points"]

_COLOURS = ("#3366cc", "#dc6f2c", "#2f9e5b", "#a3459b", "#c9a227", "#4aa3b5", "#8b5a3c", "#777777")
_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 28, 64
_STEPS = 5
_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)


def bars(values: Mapping[str, Mapping[str, float]], unit: str = "") -> str:
    """Grouped bars.

    Args:
        values: by label along the axis, and by series.
        unit: what the bars measure.
    """
    series = list(dict.fromkeys(name for one in values.values() for name in one))
    width = max(_WIDTH, _LEFT + _RIGHT + len(values) * (12 * len(series) + 14))
    low, high = _range([v for one in values.values() for v in one.values()], 0.0)
    parts = _frame(width, low, high, unit)
    slot = (width - _LEFT - _RIGHT) / max(1, len(values))
    bar = min(40.0, (slot - 8) / max(1, len(series)))
    zero = _y(0.0, low, high)
    for place, (label, one) in enumerate(values.items()):
        start = _LEFT + place * slot + (slot - bar * len(series)) / 2
        for index, name in enumerate(series):
            if name not in one:
                continue
            top = _y(one[name], low, high)
            parts.append(
                f'<rect x="{start + index * bar:.1f}" y="{min(top, zero):.1f}" '
                f'width="{bar - 1:.1f}" height="{abs(zero - top):.1f}" fill="{_colour(index)}">'
                f"<title>{escape(label)}, {escape(name)}: {one[name]:.4f}</title></rect>"
            )
        parts.append(_label(label, _LEFT + (place + 0.5) * slot))
    return _whole(width, parts, series)


def curves(values: Mapping[str, Mapping[str, float]], unit: str = "", x_unit: str = "") -> str:
    """A line a series over labels that stand at equal distances, in the order of the first series.

    Args:
        values: by series, and by label along the axis.
        unit: what the height measures.
        x_unit: what the labels are.
    """
    labels = list(dict.fromkeys(label for one in values.values() for label in one))
    low, high = _range([v for one in values.values() for v in one.values()], None)
    parts = _frame(_WIDTH, low, high, unit)
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(labels))
    at = {label: _LEFT + (i + 0.5) * step for i, label in enumerate(labels)}
    for index, (name, one) in enumerate(values.items()):
        dots = [(at[label], _y(value, low, high), label, value) for label, value in one.items()]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in dots)
        colour = _colour(index)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            _dot(x, y, colour, f"{name}, {label}: {value:.4f}") for x, y, label, value in dots
        ]
    parts += [_label(label, x) for label, x in at.items()]
    return _whole(_WIDTH, parts, list(values), x_unit)


def points(values: Mapping[str, tuple[float, float]], x_unit: str, unit: str) -> str:
    """A point a name, at ``(x, y)``."""
    low, high = _range([y for _, y in values.values()], None)
    left, right = _range([x for x, _ in values.values()], 0.0)
    parts = _frame(_WIDTH, low, high, unit)
    span = (_WIDTH - _LEFT - _RIGHT) / (right - left)
    for index, (name, (x, y)) in enumerate(values.items()):
        place = (_LEFT + (x - left) * span, _y(y, low, high))
        parts.append(_dot(*place, _colour(index), f"{name}: {x:.4g} {x_unit}, {y:.4f}"))
    parts += [_label(f"{x:g}", _LEFT + (x - left) * span) for x in _ticks(left, right)]
    return _whole(_WIDTH, parts, list(values), x_unit)


def _range(values: Sequence[float], base: float | None) -> tuple[float, float]:
    """Round ends of an axis that has room for all values; ``base`` is on it where it is given."""
    ends = [*values, *([] if base is None else [base])] or [0.0, 1.0]
    low, high = min(ends), max(ends)
    if low == high:
        low, high = low - 0.05, high + 0.05
    step = _step(low, high)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _step(low: float, high: float) -> float:
    """A round distance of ticks, of which about five fit between two values."""
    wanted = (high - low) / _STEPS
    power = 10.0 ** math.floor(math.log10(wanted))
    return power * next(one for one in _ROUND if one * power >= wanted * 0.999)


def _ticks(low: float, high: float) -> list[float]:
    step = _step(low, high)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _y(value: float, low: float, high: float) -> float:
    return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _frame(width: int, low: float, high: float, unit: str) -> list[str]:
    parts = [f'<text x="{_LEFT}" y="14" class="u">{escape(unit)}</text>']
    for value in _ticks(low, high):
        y = _y(value, low, high)
        parts.append(
            f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    return parts


def _label(text: str, x: float) -> str:
    shown = text if len(text) < 15 else text[:13] + "…"
    return (
        f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{escape(shown)}'
        f"<title>{escape(text)}</title></text>"
    )


def _dot(x: float, y: float, colour: str, about: str) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">'
        f"<title>{escape(about)}</title></circle>"
    )


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _whole(width: int, parts: Sequence[str], series: Sequence[str], x_unit: str = "") -> str:
    legend, x = [], float(_LEFT)
    for index, name in enumerate(series):
        legend.append(
            f'<rect x="{x:.0f}" y="{_HEIGHT - 20}" width="10" height="10" fill="{_colour(index)}"/>'
            f'<text x="{x + 14:.0f}" y="{_HEIGHT - 11}">{escape(name)}</text>'
        )
        x += 30 + 6.5 * len(name)
    unit = (
        f'<text x="{width - _RIGHT}" y="{_HEIGHT - _BOTTOM + 34}" text-anchor="end" class="u">'
        f"{escape(x_unit)}</text>"
    )
    wide = max(width, int(x) + _RIGHT)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {_HEIGHT}" width="{wide}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="11" fill="#222">'
        f'<rect width="{wide}" height="{_HEIGHT}" fill="#fff"/>{"".join([*parts, *legend, unit])}'
        "</svg>"
    )
