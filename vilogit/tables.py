"""Tables of numbers with named rows: a data frame where pandas is there, text where not."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

_IN_SIGHT = 10  # rows that a notebook shows: more would bury the cells around it


class Text(str):
    """Text that a console shows as it is."""

    def __repr__(self) -> str:
        return str(self)


def table(
    rows: Sequence[tuple[object, ...]], values: np.ndarray, of_rows: tuple[str, ...],
    columns: Sequence[str],
) -> Any:  # fmt: skip
    """Return a table of values, one row for each of `rows` and a column for each of `columns`.

    A row has as many names as there are `of_rows`.
    """
    try:
        import pandas as pd
    except ImportError:
        return text(rows, values, of_rows, columns)
    return pd.DataFrame(values, pd.MultiIndex.from_tuples(rows, names=of_rows), list(columns))


def text(
    rows: Sequence[tuple[object, ...]], values: np.ndarray, of_rows: tuple[str, ...],
    columns: Sequence[str],
) -> Text:  # fmt: skip
    """Return the same table as text: names to the left, numbers to the right."""
    cells = [[*of_rows, *columns]]
    cells += [
        [*map(str, names), *(f"{value:.4g}" for value in row)]
        for names, row in zip(rows, values.tolist(), strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    pads = [str.ljust] * len(of_rows) + [str.rjust] * len(columns)
    return Text(
        "\n".join(
            "  ".join(pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True))
            for line in cells
        )
    )


def html(of: Any) -> str:
    """First and last rows of a table, or the first alone where it is text."""
    if not isinstance(of, Text):
        return of.to_html(max_rows=_IN_SIGHT, float_format="{:.4g}".format)
    lines = of.splitlines()
    shown = lines[: _IN_SIGHT + 1] + ["..."] * (len(lines) > _IN_SIGHT + 1)
    return f"<pre>{escape(chr(10).join(shown))}</pre>"
