"""Two arrays side by side as an SVG: what was expected, what came, and where they differ."""

import numpy as np

CELL, GAP, TITLE = 14, 28, 18  # pixels
MOST = 32  # cells along an axis
INK, RED = "#1b2733", "#c62828"


def side_by_side(expected, got):
    """The picture, or None for what is not two small arrays of numbers with one or two axes and the same shape."""
    if any(array is None or array.dtype.kind not in "biuf" for array in (expected, got)) or expected.shape != got.shape:
        return None
    if expected.ndim not in (1, 2) or not expected.size > 1 or max(expected.shape) > MOST:
        return None
    expected, got = (np.atleast_2d(array).astype(float) for array in (expected, got))
    finite = [array[np.isfinite(array)] for array in (expected, got)]
    largest = max((np.max(np.abs(array), initial=0) for array in finite), default=0) or 1
    differs = ~np.isclose(expected, got, rtol=1e-5, atol=1e-6, equal_nan=True)
    rows, columns = expected.shape
    width, height = 2 * columns * CELL + GAP, rows * CELL + TITLE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 60}" height="{height + 2}" font-family="sans-serif" '
        f'font-size="11" fill="{INK}">',
        f'<rect width="{width + 60}" height="{height + 2}" fill="#ffffff"/>',
    ]
    for array, name, left in ((expected, "expected", 1), (got, "yours", columns * CELL + GAP)):
        parts.append(f'<text x="{left}" y="12">{name}</text>')
        for row, column in np.ndindex(array.shape):
            x, y = left + column * CELL, TITLE + row * CELL
            wrong = name == "yours" and differs[row, column]
            edge = f'stroke="{RED}" stroke-width="2"' if wrong else 'stroke="#d5dbe1"'
            size = CELL - 1
            parts.append(
                f'<rect x="{x}" y="{y}" width="{size}" height="{size}" fill="{_colour(array[row, column], largest)}" '
                f"{edge}><title>{array[row, column]:.6g}</title></rect>"
            )
    return "\n".join([*parts, "</svg>"])


def _colour(value, largest):
    """White for 0, blue above, orange below, grey for what is no number."""
    if not np.isfinite(value):
        return "#9aa5b1"
    share = min(abs(value) / largest, 1)
    to = (61, 116, 181) if value > 0 else (214, 129, 43)
    return "#" + "".join(f"{round(255 + (c - 255) * share):02x}" for c in to)
