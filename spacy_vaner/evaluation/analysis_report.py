"""The report of an analysis as Markdown, made of its JSON alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

UNDEFINED = "–"
_EXAMPLE_CONTEXT = 40


def report_analysis(analysis: Mapping[str, Any]) -> str:
    """The report. analysis: what write_analysis wrote. Figures in per cent, – where undefined."""
    lines = ["# Analysis", "", f"System: {_cell(analysis.get('system', 'not named'))}."]
    for corpus, found in analysis["corpora"].items():
        lines += ["", f"## {_cell(corpus)}", *_scores(found, analysis["scales"])]
        if found["difference_to_other"]:
            other = _cell(analysis.get("other", "the other system"))
            lines += ["", f"### Against {other}", "", *_differences(found["difference_to_other"])]
        lines += ["", "### Recall minus precision", ""]
        lines += _differences(found["recall_minus_precision"])
        lines += ["", "### Errors", *_outcomes(found["outcomes"])]
        lines += ["", "### Recall and precision of groups", "", *_groups(found["groups"])]
        if found["calibration"]:
            lines += ["", "### Calibration", "", *_calibration(found["calibration"])]
        lines += ["", "### Cases", *_cases(found["cases"])]
    return "\n".join(lines) + "\n"


def _scores(found: Mapping[str, Any], scales: Mapping[str, str]) -> Iterator[str]:
    used = {scale: types for scale, types in found["scores"].items() if types}
    for type in found["scores"]["strict"] or {}:
        yield from ("", f"### {_cell(type)}", "")
        rows = []
        for scale, types in used.items():
            if type in types:
                score = types[type]
                rows.append([scale, f"{score['gold']:,}", *_prf(score), _interval(score)])
        yield from _table(("scale", "gold", "P", "R", "F", "95 %"), rows)
        flatters = found["paper_flatters"].get(type)
        if flatters is not None:
            yield from ("", f"The paper's scale flatters by {_signed(flatters)} points of F.")
    yield ""
    for scale in used:
        yield f"- {scale}: {scales[scale]}"


def _differences(differences: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for type, each in differences.items():
        interval, p_value = each["interval"], each["p_value"]
        rows.append(
            [
                type,
                UNDEFINED if each["difference"] is None else _signed(each["difference"]),
                UNDEFINED if interval is None else " to ".join(map(_signed, interval)),
                UNDEFINED if p_value is None else f"{p_value:.3f}",
            ]
        )
    yield from _table(("type", "points", "95 %", "p"), rows)


def _outcomes(outcomes: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Iterator[str]:
    for side, what in (("mentions", "gold mentions"), ("spans", "predicted spans")):
        names = list(dict.fromkeys(name for counted in outcomes[side].values() for name in counted))
        rows = [
            [type, *(f"{counted.get(name, 0):,}" for name in names)]
            for type, counted in outcomes[side].items()
        ]
        if rows:
            yield from ("", *_table((what, *names), rows))


def _groups(groups: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        [
            attribute,
            value,
            f"{group['gold']:,}",
            percent(group["r"]),
            f"{group['predicted']:,}",
            percent(group["p"]),
        ]
        for attribute, values in groups.items()
        for value, group in values.items()
    ]
    yield from _table(("", "", "gold", "R", "predicted", "P"), rows)


def _calibration(calibration: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [type, f"{each['spans']:,}", percent(each["error"])] for type, each in calibration.items()
    ]
    yield from _table(("type", "spans", "expected calibration error"), rows)


def _cases(cases: Mapping[str, Any]) -> Iterator[str]:
    for kind, found in cases.items():
        yield from ("", f"**{kind}** ({found['meaning']}): {found['n']:,}", "")
        for example in found["examples"]:
            before, after = (example[side] for side in ("before", "after"))
            beside = ""
            if example["beside"] is not None:
                beside = f"; beside it: {example['beside']} ({example['beside_type']})"
            yield _cell(
                f"- {example['type']}: …{before[-_EXAMPLE_CONTEXT:]}"
                f"[{example['text']}]{after[:_EXAMPLE_CONTEXT]}…{beside}"
            )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"| {' | '.join('---' for _ in header)} |"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    """Text of a corpus on one line, that no Markdown or HTML is made of."""
    escaped = " ".join(text.split())
    for character, stands in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "\\`")):
        escaped = escaped.replace(character, stands)
    return escaped


def _prf(score: Mapping[str, Any]) -> list[str]:
    return [percent(score[figure]) for figure in ("p", "r", "f")]


def _interval(score: Mapping[str, Any]) -> str:
    interval = score["f_interval"]
    return UNDEFINED if interval is None else " to ".join(map(percent, interval))


def percent(figure: float | None) -> str:
    """A share in per cent with two digits."""
    return UNDEFINED if figure is None else f"{100 * figure:.2f}"


def _signed(figure: float) -> str:
    return f"{100 * figure:+.2f}"
