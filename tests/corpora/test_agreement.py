"""Two views of one corpus: sentences of words are found in the raw text, cut words restored."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spacy_vaner.corpora.agreement import agreement, place
from spacy_vaner.corpora.catalogue import catalogue_conversion
from spacy_vaner.corpora.convert import records
from spacy_vaner.corpora.formats import read_records
from spacy_vaner.corpora.report import ConversionReport
from spacy_vaner.types import Mention, Record

SAMPLE = Path(__file__).parents[2] / "project" / "corpora" / "sample"
LONG = "deoxyribonucleotidyltransferase"


def words(text):
    """A record of the words in a text, tagged as WORD/TYPE."""
    offsets, mentions, at, plain = [], [], 0, []
    for word in text.split():
        word, _, type_ = word.partition("/")
        offsets.append((at, at + len(word)))
        if type_:
            mentions.append(Mention(type_, ((at, at + len(word)),)))
        plain.append(word)
        at += len(word) + 1
    return Record("w", " ".join(plain), tuple(mentions), words=tuple(offsets))


def test_a_sentence_is_found_and_its_cut_words_restored():
    texts = [Record("a", "IL-2  binds.", ()), Record("b", f"A {LONG}-like one. IL-2 binds.", ())]
    tagged = [words("IL - 2/G binds ."), words(f"A {LONG[:20]}/G - like one ."), words("IL - 2")]
    first, second, third = place(tagged, texts)
    assert (first.document, first.mentions) == (0, (Mention("G", ((3, 4),)),))
    assert second.mentions == (Mention("G", ((2, 2 + len(LONG)),)),)
    assert second.restored == ((LONG[:20], LONG),)
    # Behind the sentence before, though an equal one stands earlier.
    assert third.document == 1


def test_what_is_nowhere_is_counted():
    text = Record("a", "IL-2 binds.", (Mention("G", ((0, 4),)), Mention("G", ((5, 10),))))
    result = agreement([words("IL - 2"), words("IL-3/G binds")], [text])
    assert (result.sentences, result.not_found) == (2, 1)
    assert (result.in_both, result.only_tokens, result.only_text) == (0, 1, 2)
    assert result.exceptions == ["text: G IL-2", "text: G binds"]


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_views_of_the_sample_corpus_agree(split):
    """But for mentions inside of others, which tags cannot say."""
    texts = list(read_records(SAMPLE / f"sample.{split}.jsonl", "jsonl"))
    result = agreement(read_records(SAMPLE / f"sample.{split}.iob2", "iob"), texts)
    nested = sum(
        any(
            other != m
            and other.fragments[0][0] <= m.fragments[0][0]
            and m.fragments[0][1] <= other.fragments[0][1]
            for other in record.mentions
            if len(other.fragments) == 1
        )
        for record in texts
        for m in record.mentions
        if len(m.fragments) == 1
    )
    assert (result.not_found, result.only_tokens, result.only_text) == (0, 0, nested)
    assert result.in_both > 0


# Corpus and view of words, against the view "text": per split sentences, those not found, words
# restored, mentions in both, only in words, only in the text. Words differ from the text where they
# were respelled (Linnaeus: "(R)" for a sign, "-" for every dash; JNLPBA: quotes). Mentions differ
# where a word was not cut at the mention's end ("antitumor" for "tumor").
AGREEMENT = {
    "NCBI-disease.tokens": {
        "train": (5424, 0, 0, 5132, 2, 13),
        "dev": (923, 0, 0, 787, 0, 0),
        "test": (940, 0, 0, 960, 0, 0),
    },
    "BC5CDR.tokens": {
        "train": (4560, 0, 0, 9385, 0, 0),
        "dev": (4581, 0, 0, 9579, 14, 12),
        "test": (4797, 0, 0, 9804, 5, 5),
    },
    "S800.tokens": {
        "train": (5733, 0, 0, 2553, 4, 4),
        "dev": (830, 0, 0, 384, 0, 0),
        "test": (1630, 0, 0, 766, 1, 1),
    },
    "Linnaeus.tokens": {
        "train": (11935, 1211, 0, 1779, 340, 340),
        "dev": (4078, 463, 0, 559, 152, 149),
        "test": (7142, 674, 0, 1240, 193, 192),
    },
    "Linnaeus.paper": {
        "train": (11935, 1211, 74, 1779, 340, 340),
        "dev": (4078, 463, 26, 559, 152, 149),
        "test": (7142, 677, 14, 1240, 193, 192),
    },
    "AnatEM.tokens": {
        "train": (5861, 0, 0, 6908, 38, 38),
        "dev": (2118, 0, 0, 2128, 11, 11),
        "test": (3830, 0, 0, 4587, 29, 29),
    },
    "BC2GM.tokens": {
        "train": (12574, 0, 0, 15178, 19, 26),
        "dev": (2519, 0, 0, 3058, 3, 3),
        "test": (5038, 0, 0, 6318, 7, 13),
    },
    "JNLPBA.tokens": {
        "train": (16807, 105, 0, 36939, 189, 189),
        "dev": (1739, 16, 0, 3586, 39, 39),
        "test": (3856, 23, 0, 6205, 36, 36),
    },
    "JNLPBA.paper": {"test": (3856, 23, 23, 6205, 36, 36)},
}


@pytest.mark.external
@pytest.mark.parametrize("name", AGREEMENT)
def test_the_views_of_the_published_corpora_agree(name):
    """Needs VANER_CORPORA_DIR, the folder that holds the corpora."""
    corpus, _, view = name.partition(".")
    folder = Path(os.environ["VANER_CORPORA_DIR"])
    found = {}
    for split in AGREEMENT[name]:
        words, texts = (
            records(
                catalogue_conversion(corpus, form, split, corpora_dir=folder), ConversionReport()
            )
            for form in (view, "text")
        )
        result = agreement(words, texts)
        found[split] = (
            result.sentences,
            result.not_found,
            result.restored,
            result.in_both,
            result.only_tokens,
            result.only_text,
        )
    assert found == AGREEMENT[name]
