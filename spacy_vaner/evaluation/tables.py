"""Tables of Markdown, and figures as they stand in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

UNDEFINED = "–"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(text: str) -> str:
    """Any text on one line of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def percent(figure: float | None) -> str:
    """A share in per cent."""
    return UNDEFINED if figure is None else f"{100 * figure:.2f}"


def signed(figure: float | None) -> str:
    """A difference of shares in points."""
    return UNDEFINED if figure is None else f"{100 * figure:+.2f}"


def plain(figure: float | None) -> str:
    return UNDEFINED if figure is None else f"{figure:.2f}"


def rounded(figure: float | None, digits: int = 0) -> str:
    return UNDEFINED if figure is None else f"{figure:,.{digits}f}"


def megabytes(n_bytes: float | None) -> str:
    return UNDEFINED if n_bytes is None else f"{n_bytes / 1e6:,.1f}"
