"""The sample corpus is what its README says; read with plain code, not the package's readers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

SAMPLE = Path(__file__).parents[2] / "project" / "corpora" / "sample"
SPLITS = {"train": 36, "dev": 8, "test": 16}
TYPES = ("Disease", "Chemical", "Gene", "Species")

Document = dict[str, Any]
Span = tuple[int, int, str]


def documents(split: str) -> list[Document]:
    lines = (SAMPLE / f"sample.{split}.jsonl").read_text(encoding="utf8").splitlines()
    return [json.loads(line) for line in lines]


def spans(document: Document) -> list[Span]:
    return [(start, end, type_) for start, end, type_, _ in document["ents"]]


def is_nested(span: Span, others: list[Span]) -> bool:
    return any(o != span and o[0] <= span[0] and span[1] <= o[1] for o in others)


def outermost(document: Document) -> list[Span]:
    found = spans(document)
    return [span for span in found if not is_nested(span, found)]


def surface(document: Document, fragments: list[list[int]]) -> str:
    return " ".join(document["text"][start:end] for start, end in fragments)


def iob2(split: str) -> list[list[list[tuple[str, str]]]]:
    """The documents of a split as lists of sentences of (word, tag)."""
    read: list[list[list[tuple[str, str]]]] = []
    text = (SAMPLE / f"sample.{split}.iob2").read_text(encoding="utf8")
    for block in text.strip("\n").split("\n\n"):
        if block == "-DOCSTART-\tO":
            read.append([])
        else:
            pairs = [line.split("\t") for line in block.split("\n")]
            read[-1].append([(word, tag) for word, tag in pairs])
    return read


def placed(text: str, sentences: list[list[tuple[str, str]]]) -> list[tuple[int, int, str]]:
    """Find the words of a document one after the other; only white space may lie between them."""
    words = []
    end = 0
    for word, tag in (pair for sentence in sentences for pair in sentence):
        start = text.index(word, end)
        assert not text[end:start].strip()
        end = start + len(word)
        words.append((start, end, tag))
    assert not text[end:].strip()
    return words


def untagged(words: list[tuple[int, int, str]]) -> list[Span]:
    found: list[Span] = []
    previous = "O"
    for start, end, tag in words:
        if tag.startswith("B-"):
            found.append((start, end, tag[2:]))
        elif tag != "O":
            assert previous != "O" and tag == f"I-{found[-1][2]}"
            found[-1] = (found[-1][0], end, found[-1][2])
        previous = tag
    return found


@pytest.mark.parametrize("split", SPLITS)
def test_documents_have_the_promised_number_and_length(split: str) -> None:
    found = documents(split)
    assert len(found) == SPLITS[split]
    for document in found:
        assert set(document) == {"id", "text", "ents", "disc"}
        assert 120 <= len(document["text"].split()) <= 190, document["id"]


def test_ids_and_sentences_occur_once() -> None:
    ids = [document["id"] for split in SPLITS for document in documents(split)]
    assert ids == [f"S{number:03}" for number in range(1, 61)]
    sentences = [
        " ".join(word.lower() for word, _ in sentence)
        for split in SPLITS
        for document in iob2(split)
        for sentence in document
    ]
    assert len(sentences) == len(set(sentences))


@pytest.mark.parametrize("split", SPLITS)
def test_mentions_slice_to_their_text_and_are_sorted(split: str) -> None:
    for document in documents(split):
        found = spans(document)
        assert found == sorted(set(found))
        for start, end, type_, text in document["ents"]:
            assert type_ in TYPES
            assert document["text"][start:end] == text == text.strip() != ""
        for a in found:
            assert not any(a[0] < b[0] < a[1] < b[1] for b in found), "crossing mentions"
        assert document["disc"] == sorted(document["disc"])
        for fragments, type_ in document["disc"]:
            assert type_ in TYPES
            bounds = [bound for fragment in fragments for bound in fragment]
            assert len(fragments) > 1 and bounds == sorted(set(bounds))
            assert all(s == s.strip() for s in (document["text"][a:b] for a, b in fragments))


@pytest.mark.parametrize("split", SPLITS)
def test_no_mention_starts_or_ends_inside_a_word(split: str) -> None:
    for document, sentences in zip(documents(split), iob2(split), strict=True):
        fragments = [span[:2] for span in spans(document)]
        fragments += [(a, b) for parts, _ in document["disc"] for a, b in parts]
        words = placed(document["text"], sentences)
        assert {a for a, _ in fragments} <= {start for start, _, _ in words}
        assert {b for _, b in fragments} <= {end for _, end, _ in words}


@pytest.mark.parametrize("split", SPLITS)
def test_a_name_that_is_marked_once_is_marked_throughout_its_document(split: str) -> None:
    for document in documents(split):
        marked = spans(document)
        parts = [(a, b) for fragments, _ in document["disc"] for a, b in fragments]
        for name in {text for *_, text in document["ents"] if len(text) > 2}:
            for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", document["text"]):
                covers = [*((a, b) for a, b, _ in marked), *parts]
                start, end = match.span()
                assert any(a <= start and end <= b for a, b in covers), (document["id"], name)


def test_pubtator_agrees_with_jsonl_on_contiguous_mentions() -> None:
    for split in SPLITS:
        text = (SAMPLE / f"sample.{split}.pubtator").read_text(encoding="utf8")
        blocks = text.strip("\n").split("\n\n")
        for document, block in zip(documents(split), blocks, strict=True):
            title, abstract, *lines = block.split("\n")
            id_, title_mark, title = title.split("|", 2)
            assert (id_, title_mark) == (document["id"], "t")
            assert abstract.startswith(f"{id_}|a|")
            assert f"{title} {abstract.split('|', 2)[2]}" == document["text"]
            found = []
            for line in lines:
                line_id, start, end, mention, type_ = line.split("\t")
                assert line_id == id_
                found.append([int(start), int(end), type_, mention])
            assert found == document["ents"]


def test_iob2_agrees_with_jsonl_on_outermost_mentions() -> None:
    for split in SPLITS:
        for document, sentences in zip(documents(split), iob2(split), strict=True):
            assert untagged(placed(document["text"], sentences)) == outermost(document)


def test_the_hard_cases_are_there() -> None:
    found = [document for split in SPLITS for document in documents(split)]
    texts = "".join(document["text"] for document in found)
    assert any(ord(character) > 0xFFFF for character in texts)
    assert any(0x300 <= ord(character) < 0x370 for character in texts)
    assert {"β", "µ", "ö", "ï"} <= set(texts)
    at_start = [d for d in found if any(start == 0 for start, _, _ in spans(d))]
    at_end = [d for d in found if any(end == len(d["text"]) for _, end, _ in spans(d))]
    assert at_start and at_end
    assert any("BRCA1-deficient" in d["text"] for d in found)
    after_emoji = [
        d
        for d in found
        for start, *_ in spans(d)
        if max(map(ord, d["text"][:start] or " ")) > 0xFFFF
    ]
    assert after_emoji


def counts(split: str) -> dict[str, int]:
    """The rows of the README's table for one split."""
    found = documents(split)
    mentions = [(type_, text) for document in found for _, _, type_, text in document["ents"]]
    discontinuous = [
        (type_, surface(document, fragments))
        for document in found
        for fragments, type_ in document["disc"]
    ]
    everything = mentions + discontinuous
    n_outermost = sum(len(outermost(document)) for document in found)
    return {
        "documents": len(found),
        "sentences": sum(len(document) for document in iob2(split)),
        "words": sum(len(document["text"].split()) for document in found),
        **{type_: sum(t == type_ for t, _ in everything) for type_ in TYPES},
        "all mentions": len(everything),
        "nested": len(mentions) - n_outermost,
        "discontinuous": len(discontinuous),
        "non-ASCII": sum(not text.isascii() for _, text in everything),
        "outermost": n_outermost,
    }


def test_readme_counts_are_those_of_the_files() -> None:
    expected = {split: counts(split) for split in SPLITS}
    assert all(count > 0 for row in expected.values() for count in row.values())
    readme = (SAMPLE / "README.md").read_text(encoding="utf8")
    table = re.findall(r"^\| ([\w -]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", readme, re.M)
    written = {name: [int(number) for number in numbers] for name, *numbers in table}
    by_row = {name: [row[name] for row in expected.values()] for name in expected["train"]}
    assert written == {name: [*row, sum(row)] for name, row in by_row.items()}


def test_share_of_unseen_test_mentions_is_high_and_as_the_readme_says() -> None:
    seen = {(text.lower(), type_) for d in documents("train") for _, _, type_, text in d["ents"]}
    tested = [(text.lower(), type_) for d in documents("test") for _, _, type_, text in d["ents"]]
    share = sum(mention not in seen for mention in tested) / len(tested)
    assert share >= 0.3
    readme = " ".join((SAMPLE / "README.md").read_text(encoding="utf8").split())
    assert (
        f"Of the {len(tested)} contiguous mentions in test, {share:.0%}".replace("%", " %")
        in readme
    )


def test_documents_named_for_rare_characters_are_those_that_hold_them() -> None:
    rare = [
        document["id"]
        for split in SPLITS
        for document in documents(split)
        if any(0x300 <= ord(c) < 0x370 or ord(c) > 0xFFFF for c in document["text"])
    ]
    readme = (SAMPLE / "README.md").read_text(encoding="utf8")
    assert f"Documents {', '.join(rare[:-1])} and {rare[-1]} hold combining" in readme
