"""The page: what is in it, and what a browser makes of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from spacy_vaner.evaluation.judgement import judge
from spacy_vaner.evaluation.page import write_page
from spacy_vaner.evaluation.predictions import FoundSpan
from tests.support.gold_documents import by_heart, gold_document, place, predicted_document

TEXT = "Acute lung cancer, </script><b>BRCA1</b> & mice."


def data_of(page):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(data)


def judged():
    gold = gold_document(
        TEXT, [("Disease", "lung cancer"), ("Gene", "BRCA1"), ("Species", "mice")], id="7"
    )
    found = [
        FoundSpan("Disease", *place(TEXT, "Acute lung cancer"), 0.6),
        FoundSpan("Gene", *place(TEXT, "BRCA1"), 0.9),
    ]
    return {"Corpus": [judge(predicted_document(gold, found))]}


def test_the_text_is_cut_where_cases_begin_and_end(tmp_path):
    write_page(judged(), tmp_path / "page.html", title="A & B")
    (document,) = data_of((tmp_path / "page.html").read_text("utf8"))["documents"]
    assert "".join(stretch for stretch, _ in document["parts"]) == TEXT
    covered = {
        stretch: [(document["cases"][n]["side"], document["cases"][n]["outcome"]) for n in numbers]
        for stretch, numbers in document["parts"]
        if numbers
    }
    assert covered == {
        "Acute ": [("found", "left boundary")],
        "lung cancer": [("found", "left boundary"), ("gold", "left boundary")],
        "BRCA1": [("gold", "hit")],
        "mice": [("gold", "missed")],
    }


def test_hits_carry_their_probability_and_errors_what_stands_beside_them(tmp_path):
    write_page(judged(), tmp_path / "page.html", title="")
    (document,) = data_of((tmp_path / "page.html").read_text("utf8"))["documents"]
    notes = {case["note"] for case in document["cases"]}
    assert "gold and found: BRCA1 (Gene), hit, probability 0.90" in notes
    assert (
        "found: Acute lung cancer (Disease), left boundary, probability 0.60; beside it: "
        "lung cancer (Disease)"
    ) in notes


def test_the_page_needs_nothing_from_anywhere(tmp_path):
    write_page(judged(), tmp_path / "page.html", title="A & <B>")

    class Links(HTMLParser):
        found: list[str] = []

        def handle_starttag(self, tag, attrs):
            self.found += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href")]

    page = (tmp_path / "page.html").read_text("utf8")
    Links().feed(page)
    assert not Links.found
    assert "url(" not in page and "import" not in page.split("<style>")[1].split("</style>")[0]
    assert "<title>A &amp; &lt;B&gt;</title>" in page


def test_documents_with_errors_come_first_and_the_rest_is_counted(tmp_path):
    right = predicted_document(gold_document("BRCA1", [("Gene", "BRCA1")], id="right"), [])
    hit = predicted_document(right.document, [("Gene", "BRCA1")])
    found = {"Corpus": [judge(each) for each in (hit, right, hit)]}
    assert write_page(found, tmp_path / "page.html", title="", max_documents=2) == 1
    page = (tmp_path / "page.html").read_text("utf8")
    outcomes = [document["cases"][0]["outcome"] for document in data_of(page)["documents"]]
    assert outcomes == ["missed", "hit"]
    assert "1 documents are not shown" in page


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class Marks(HTMLParser):
    """What a browser has drawn: marks with their text, documents, and the line of counts."""

    def __init__(self, html):
        super().__init__()
        self.marks: list[tuple[str, str, str]] = []
        self.n_documents = 0
        self.count = ""
        self._mark: dict[str, str | None] = {}
        self._in_count = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self._mark = attributes if tag == "mark" else {}
        self._in_count = attributes.get("id") == "count"
        self.n_documents += tag == "article"

    def handle_endtag(self, tag):
        self._mark, self._in_count = {}, False

    def handle_data(self, data):
        if self._mark:
            mark = self._mark
            self.marks.append((data, mark["data-type"] or "", mark["data-outcome"] or ""))
        if self._in_count:
            self.count += data


def drawn(page: Path, off: str = "") -> Marks:
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--disable-background-networking", f"--user-data-dir={page.parent / 'profile'}"),
            *("--virtual-time-budget=2000", f"{page.as_uri()}#{off}"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return Marks(done.stdout)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_draws_the_cases_and_filters_them(tmp_path):
    page = tmp_path / "page.html"
    write_page(judged(), page, title="A")
    everything = drawn(page)
    assert everything.marks == [
        ("Acute ", "Disease", "left boundary"),
        ("lung cancer", "Disease", "left boundary"),
        ("BRCA1", "Gene", "hit"),
        ("mice", "Species", "missed"),
    ]
    assert everything.count == "4 stretches in 1 documents"
    some = drawn(page, "type=Disease&outcome=hit")
    assert some.marks == [("mice", "Species", "missed")]
    none = drawn(page, "type=Disease&type=Gene&type=Species")
    assert (none.marks, none.n_documents) == ([], 0)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_real_documents(tmp_path):
    page = tmp_path / "page.html"
    found = {"sample": [judge(each) for each in by_heart()]}
    write_page(found, page, title="Sample")
    whole = drawn(page)
    assert whole.n_documents == 16
    cases = [
        case for each in data_of(page.read_text("utf8"))["documents"] for case in each["cases"]
    ]
    assert whole.count == f"{len(cases)} stretches in 16 documents"
    assert {outcome for _, _, outcome in whole.marks} == {case["outcome"] for case in cases}
