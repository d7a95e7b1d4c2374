"""Two views of one corpus: sentences of words are found in the raw text, cut words restored."""

from __future__ import annotations

from pathlib import Path

import pytest

from spacy_vaner.corpora.agreement import agreement, place
from spacy_vaner.corpora.formats import read_records
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
