"""One page to look at what a system did: gold mentions and predicted spans, coloured by outcome.

The page holds its data, style and script; it needs nothing from anywhere and works from a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from spacy_vaner.evaluation.judgement import HIT, OUTCOMES, Judged, JudgedDocument
from spacy_vaner.files import write_whole

_COLORS = {
    "hit": "#bfe3c3",
    "left boundary": "#fbe3a6",
    "right boundary": "#fbe3a6",
    "both boundaries": "#fbe3a6",
    "type": "#d9c7ee",
    "type and boundary": "#d9c7ee",
    "missed": "#f6c1bb",
    "discontinuous": "#f6c1bb",
    "spurious": "#b9d3f2",
}


def write_page(
    corpora: Mapping[str, Sequence[JudgedDocument]],
    path: Path,
    *,
    title: str,
    max_documents: int = 200,
) -> int:
    """Write the page.

    corpora: the documents of each corpus.
    max_documents: shown per corpus; those with errors come first, in the order of the files.
    RETURNS: how many documents are not shown.
    """
    shown: list[dict[str, Any]] = []
    n_left_out = 0
    for corpus, of_corpus in corpora.items():
        # The sort is stable: among themselves both kinds keep their order.
        documents = sorted(of_corpus, key=lambda each: not _has_error(each))
        n_left_out += max(0, len(documents) - max_documents)
        shown += [_document(corpus, each) for each in documents[:max_documents]]
    outcomes = {case["outcome"] for each in shown for case in each["cases"]}
    data = {
        "documents": shown,
        "types": sorted({case["type"] for each in shown for case in each["cases"]}),
        "outcomes": [outcome for outcome in OUTCOMES if outcome in outcomes],
        "colors": _COLORS,
    }
    # "<" may begin the end of the script element.
    embedded = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    notes = f"{n_left_out:,} documents are not shown." if n_left_out else ""
    page = _PAGE.replace("%TITLE%", escape(title)).replace("%NOTES%", notes)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page.replace("%DATA%", embedded).encode("utf8", "replace"))
    return n_left_out


def _has_error(document: JudgedDocument) -> bool:
    return any(each.outcome != HIT for each in (*document.mentions, *document.spans))


def _document(corpus: str, document: JudgedDocument) -> dict[str, Any]:
    """Hits once, though they are a mention and a span; errors of both sides."""
    probabilities = {span[:3]: span.probability for span in document.spans}
    mentions = [
        mention._replace(probability=probabilities.get(mention[:3]))
        if mention.outcome == HIT
        else mention
        for mention in document.mentions
    ]
    wrong = [span for span in document.spans if span.outcome != HIT]
    return {
        "corpus": corpus,
        "id": document.predicted.document.gold.id or "",
        "parts": _parts(document.text, [*mentions, *wrong]),
        "cases": [
            *(_case(mention, "gold", document.text) for mention in mentions),
            *(_case(span, "found", document.text) for span in wrong),
        ],
    }


def _case(judged: Judged, side: str, text: str) -> dict[str, Any]:
    said = "gold and found" if judged.outcome == HIT else side
    note = f"{said}: {text[judged.start : judged.end]} ({judged.type}), {judged.outcome}"
    if judged.probability is not None:
        note += f", probability {judged.probability:.2f}"
    if judged.partner is not None:
        note += f"; beside it: {text[slice(*judged.partner)]} ({judged.partner_type})"
    return {"type": judged.type, "outcome": judged.outcome, "side": side, "note": note}


def _parts(text: str, cases: Sequence[Judged]) -> list[list[Any]]:
    """The text in stretches that the same cases cover: [stretch, numbers of the cases]."""
    bounds = sorted({0, len(text), *(case.start for case in cases), *(case.end for case in cases)})
    begin: dict[int, list[int]] = {}
    for number, case in enumerate(cases):
        begin.setdefault(case.start, []).append(number)
    parts: list[list[Any]] = []
    covering: list[int] = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        covering = [number for number in covering if cases[number].end > start]
        covering += begin.get(start, [])
        parts.append([text[start:end], list(covering)])
    return parts


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%TITLE%</title>
<style>
body { font: 16px/1.7 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
fieldset { border: 1px solid #ccc; margin: 0 0 .6rem; }
label { margin-right: 1rem; white-space: nowrap; }
label i { border-radius: .2rem; padding: 0 .3rem; font-style: normal; }
article { border-top: 1px solid #ddd; padding: .6rem 0; white-space: pre-wrap;
  overflow-wrap: anywhere; }
article h2 { font-size: .9rem; color: #555; margin: 0; }
mark { border-radius: .2rem; padding: .1rem 0; }
mark.gold { box-shadow: inset 0 -2px #333; }
mark.found { outline: 1px dashed #333; }
</style>
</head>
<body>
<h1>%TITLE%</h1>
<p>Underlined: gold. Dashed frame: found by the system. Both of a hit: underlined and green.
Point at a stretch to read about it. %NOTES%</p>
<form id="filters"></form>
<p id="count" role="status"></p>
<main id="documents"></main>
<script type="application/json" id="data">%DATA%</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("filters");
const main = document.getElementById("documents");
const BATCH = 25;
let shown = 0;

function element(name, parent, properties) {
  const made = Object.assign(document.createElement(name), properties || {});
  parent.append(made);
  return made;
}

function addFilter(legend, name, values, color) {
  const box = element("fieldset", form);
  element("legend", box, {textContent: legend});
  for (const value of values) {
    const label = element("label", box);
    element("input", label, {type: "checkbox", name: name, value: value, checked: true});
    const text = element("i", label, {textContent: value});
    if (color) text.style.background = color[value];
  }
}

function chosen(name) {
  return new Set([...form.querySelectorAll(`input[name=${name}]:checked`)].map(box => box.value));
}

function remember() {
  // What is left out stands in the address, so that a view can be kept and sent.
  const off = new URLSearchParams();
  for (const box of form.querySelectorAll("input:not(:checked)")) off.append(box.name, box.value);
  history.replaceState(null, "", "#" + off.toString());
}

function recall() {
  const off = new URLSearchParams(location.hash.slice(1));
  for (const box of form.querySelectorAll("input")) {
    box.checked = !off.getAll(box.name).includes(box.value);
  }
}

function draw(page, cases) {
  const article = document.createElement("article");
  element("h2", article, {textContent: [page.corpus, page.id].filter(Boolean).join(" ")});
  for (const [stretch, numbers] of page.parts) {
    const here = numbers.filter(number => cases.has(number)).map(number => page.cases[number]);
    if (!here.length) { article.append(stretch); continue; }
    const mark = element("mark", article, {textContent: stretch});
    mark.title = here.map(one => one.note).join("\\n");
    // An error is seen through the hit that it overlaps.
    const told = here.find(one => one.outcome !== "hit") || here[0];
    mark.style.background = data.colors[told.outcome];
    for (const one of here) mark.classList.add(one.side);
    mark.dataset.outcome = told.outcome;
    mark.dataset.type = told.type;
  }
  return article;
}

let matching = [];

function more() {
  for (const [page, cases] of matching.slice(shown, shown + BATCH)) main.append(draw(page, cases));
  shown = Math.min(shown + BATCH, matching.length);
}

function update() {
  const types = chosen("type"), outcomes = chosen("outcome");
  const everything = types.size === data.types.length && outcomes.size === data.outcomes.length;
  matching = [];
  let n = 0;
  for (const page of data.documents) {
    const cases = new Set();
    page.cases.forEach((one, number) => {
      if (types.has(one.type) && outcomes.has(one.outcome)) cases.add(number);
    });
    n += cases.size;
    if (cases.size || everything) matching.push([page, cases]);
  }
  document.getElementById("count").textContent = `${n} stretches in ${matching.length} documents`;
  main.replaceChildren();
  shown = 0;
  more();
}

addFilter("Types", "type", data.types);
addFilter("Outcomes", "outcome", data.outcomes, data.colors);
form.addEventListener("change", () => { remember(); update(); });
addEventListener("hashchange", () => { recall(); update(); });
addEventListener("scroll", () => {
  if (innerHeight + scrollY > document.body.scrollHeight - 800) more();
});
recall();
update();
</script>
</body>
</html>
"""
