"""The page of the server, clicked through in a real Chromium."""

# ruff: noqa: E402  # what an extra brings is asked for before it is imported
from __future__ import annotations

import re
import shutil

import pytest
import spacy
from spacy.language import Language

pytest.importorskip("fastapi", reason="fastapi is in the extra [serve]")
httpx = pytest.importorskip("httpx", reason="httpx is in requirements-dev.txt")
playwright = pytest.importorskip("playwright.sync_api", reason="it is in requirements-dev.txt")

from spacy_vaner.annotation.server.bodies import ServerLimits
from spacy_vaner.model import get_tagger
from tests.support.serving import MODEL, serving

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    # A new type is asked, which the tagger has never seen.
    pytest.mark.filterwarnings("ignore:VW041"),
]
TEXT = "<b>of zinc</b> & <script>alert(1)</script>\n😀 the BRCA1 was at folic acid in"
LIMITS = ServerLimits(characters=2_000)


@Language.component("test_phrases")
def phrases(doc):
    """Adds to every prediction one that begins inside of it and ends behind it."""
    found = doc.user_data["vaner_predictions"]
    added = [["Phrase", start + 2, end + 3, 0.25] for _, start, end, _ in found]
    doc.user_data["vaner_predictions"] = [*found, *added]
    return doc


@pytest.fixture(scope="module")
def load(pipeline):
    def load():
        nlp = spacy.load(pipeline)
        nlp.add_pipe("test_phrases", last=True)
        return nlp

    return load


@pytest.fixture(scope="module")
def served(load):
    with serving(load, LIMITS) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, served, request):
    """The page, open; nothing may go wrong in it or be fetched from elsewhere."""
    width = getattr(request, "param", 1000)
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_default_timeout(60_000)
    faults = []
    page.on("console", lambda said: said.type == "error" and faults.append(said.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("request", lambda r: r.url.startswith((served, "blob:")) or faults.append(r.url))
    page.goto(served)
    page.wait_for_selector("#ticks input")
    yield page
    page.close()
    assert faults == []


def found_by(served, text, **settings):
    """The entities that the server gives: text, type, offsets, score, in the order of the table."""
    body = {"documents": [{"id": "text", "text": text}]}
    (row,) = httpx.post(f"{served}/annotate", params=settings, json=body, timeout=60).json()[
        "documents"
    ]
    entities = zip(row["ents"], row["scores"], strict=True)
    rows = [(said, type_, f"{s}–{e}", f"{p:.4f}") for (s, e, type_, said), p in entities]
    return sorted(rows, key=lambda row: [int(n) for n in row[2].split("–")][0])


def table(page):
    return [
        tuple(cell.inner_text() for cell in row.query_selector_all("td"))
        for row in page.query_selector_all("#rows tr")
    ]


def find(page, text=TEXT):
    page.fill("#text", text)
    page.click("#find")
    page.wait_for_selector("#rows tr")


def test_the_example_is_there_and_is_read(page):
    text = page.input_value("#text")
    assert "cisplatin" in text
    page.fill("#text", "")
    page.click("#example")
    assert page.input_value("#text") == text
    page.click("#find")
    page.wait_for_selector("#result:not([hidden])")
    assert page.inner_text("#model") == MODEL
    assert page.evaluate("document.getElementById('drawn').textContent") == text


def test_what_is_found_is_in_the_text_and_in_the_table(page, served):
    find(page)
    rows = table(page)
    assert sorted(rows) == sorted(found_by(served, TEXT)) and len(rows) == 6
    assert [row[0] for row in rows if row[1] == "Gene"] == ["BRCA1"]
    # HTML stays text, offsets hold behind a character of two UTF-16 units, overlaps are cut.
    assert page.evaluate("document.getElementById('drawn').textContent") == TEXT
    assert not page.query_selector("#drawn b, #drawn script, #drawn img")
    marks = [mark.text_content() for mark in page.query_selector_all("#drawn mark")]
    assert marks[:3] == ["zi", "nc", "</b"] and "BR" in marks and "CA1" in marks
    assert page.inner_text("#status").startswith("6 entities")


def test_overlapping_entities_have_a_line_each_and_tell_their_scores_on_hover(page, served):
    find(page)
    both = page.locator("#drawn mark", has_text=re.compile(r"^CA1$"))
    sizes = both.evaluate("mark => mark.style.backgroundSize.split(',').length")
    places = both.evaluate("mark => mark.style.backgroundPosition")
    assert sizes == 3 and "0px" in places and "4px" in places  # two lines and the ground
    both.hover()
    tip = page.inner_text("#tip")
    (score,) = [row[3] for row in found_by(served, TEXT) if row[1] == "Gene"]
    assert f"Gene: BRCA1\n{score}" in tip and "Phrase: CA1 wa\n0.2500" in tip
    page.mouse.move(1, 1)
    page.wait_for_selector("#tip", state="hidden")


def test_types_are_ticked_and_new_ones_added(page, served):
    assert [tick.input_value() for tick in page.query_selector_all("#ticks input")] == [
        "Chemical",
        "Gene",
    ]
    page.uncheck("#ticks input >> nth=0")
    page.fill("#new-type", "Gene")  # known already
    page.click("#add")
    page.fill("#new-type", "<i>Metal & ion")
    page.press("#new-type", "Enter")
    assert page.locator("#ticks input").count() == 3
    assert page.locator("#ticks label").nth(2).inner_text() == "<i>Metal & ion"
    page.fill("#corpus", "X")
    with page.expect_request("**/annotate?*") as sent:
        find(page)
    assert sent.value.url.endswith("?types=Gene&types=%3Ci%3EMetal+%26+ion&corpus=X")
    assert sorted(table(page)) == sorted(
        found_by(served, TEXT, types=["Gene", "<i>Metal & ion"], corpus="X")
    )
    for number in range(3):
        page.uncheck(f"#ticks input >> nth={number}")
    page.click("#find")
    assert page.inner_text("#error") == "Tick at least one type."


def test_the_threshold_hides_what_is_below(page):
    find(page)
    page.evaluate(
        "() => { const bar = document.getElementById('threshold');"
        "bar.value = 0.5; bar.dispatchEvent(new Event('input')); }"
    )
    assert page.inner_text("#least") == "0.50"
    assert {row[1] for row in table(page)} == {"Chemical", "Gene"}
    assert "3 below the score" in page.inner_text("#status")
    with page.expect_download() as download:
        page.click("text=PubTator")
    assert "Phrase" not in download.value.path().read_text("utf8")


@pytest.mark.parametrize(
    "button, name, to",
    [
        ("PubTator", "entities.pubtator", "pubtator"),
        ("BioC JSON", "entities.bioc.json", "bioc_json"),
        ("JSONL", "entities.jsonl", "jsonl"),
    ],
)
def test_downloads_are_what_the_server_writes(page, served, button, name, to):
    find(page)
    page.fill("#text", "something else by now")
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    assert download.value.suggested_filename == name
    body = {"documents": [{"id": "text", "text": TEXT}]}
    answer = httpx.post(f"{served}/annotate", params={"to": to}, json=body, timeout=60)
    assert download.value.path().read_bytes() == answer.content


def test_all_of_it_works_by_keyboard(page):
    page.focus("#text")
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("of zinc and zinc")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#rows tr")
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.value"))
        if page.evaluate("document.activeElement.closest('#rows') !== null"):
            break
    for name in ("example", "Chemical", "Gene", "new-type", "add", "corpus", "threshold", "find"):
        assert name in reached
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "MARK"
    assert "Chemical: zinc" in page.inner_text("#tip")
    page.keyboard.press("Escape")
    assert page.is_hidden("#tip")


@pytest.mark.parametrize("page", [390], indirect=True)
def test_nothing_is_wider_than_a_phone(page):
    page.fill("#new-type", "a type with a long name, " + "x" * 60)
    page.click("#add")
    find(page, TEXT + " " + "zinc" * 100)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#drawn mark").last.hover()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sizes = "[...document.querySelectorAll('button:not(.plain)')].map(one => one.offsetHeight)"
    assert min(page.evaluate(sizes)) >= 36


@pytest.fixture
def open_page(browser):
    """Opens a page on which something may go wrong: Chromium notes answers of 4xx as errors."""

    def open_page(address):
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        page.wait_for_selector("#ticks input")
        return page

    yield open_page
    for context in browser.contexts:
        context.close()


def test_a_refusal_is_shown_as_the_server_says_it(open_page, served):
    page = open_page(served)
    page.fill("#new-type", "a:b")
    page.click("#add")
    page.fill("#text", "  \n ")
    page.click("#find")
    assert page.inner_text("#error") == "There is no text to read."
    page.fill("#text", TEXT)
    page.click("#find")
    page.wait_for_selector("#error:has-text('VE022')")
    assert page.is_hidden("#result") and page.inner_text("#status") == ""


def test_types_that_are_known_are_offered_and_new_ones_told(open_page, pipeline):
    def load():
        nlp = spacy.load(pipeline)
        get_tagger(nlp.get_pipe("vaner_ner").model).known_types = ("Gene", "Chemical", "Metal")
        return nlp

    with serving(load, LIMITS) as address:
        page = open_page(address)
        ticks = page.query_selector_all("#ticks input")
        offered = [(tick.input_value(), tick.is_checked()) for tick in ticks]
        assert offered == [("Chemical", True), ("Gene", True), ("Metal", False)]
        page.check("#ticks input >> nth=2")
        find(page)
        assert page.is_hidden("#fresh")
        page.fill("#new-type", "<i>Ion")
        page.click("#add")
        page.click("#find")
        page.wait_for_selector("#fresh:not([hidden])")
        assert page.inner_text("#fresh").endswith("trained for it: <i>Ion")


def test_a_server_that_is_gone_is_told(open_page, load):
    with serving(load, LIMITS) as address:
        page = open_page(address)
    page.click("#find")
    page.wait_for_selector("#error:not([hidden])")
    assert "Is it still running?" in page.inner_text("#error")
