"""A tiny tagger that knows a few words by heart, and the documents that it is taught with."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam

from spacy_vaner.component import VanerNER
from spacy_vaner.gold import KEY, Gold, unannotated_copy
from spacy_vaner.types import Mention

MENTIONS = {
    "Chemical": ["aspirin", "5-fluorouracil", "zinc", "folic acid"],
    "Gene": ["BRCA1", "TNF-α", "p53", "HDAC"],
}
FILLERS = (
    "the of in and with was were a patients cells study treated levels by after two groups mice "
    "found this that effect on dose , . ( ) high low showed at risk 12 for not or"
).split()
STRANGE = (
    "contact" * 30,
    "x" * 90,
    "😀👍🏽",
    "\u200b",
    "\r\n" * 9,
    "o\u0308",
    "\x00",
    "שלום",
    "\ue000\uffff",
)
N_WORDS, OVERLAP, MAX_SUBWORDS = 12, 4, 24
"""Small windows, so that small documents have many boundaries."""

TINY: dict[str, Any] = {
    "types": ["Chemical", "Gene"],
    # Said, since by default they are those of the tagger that the package carries.
    **{"asking": "per_type", "corpus": None, "threshold": 0.0, "repeat_threshold": None},
    "precision": "fp32",
    "device": "cpu",
    "model": {
        "@architectures": "spacy-vaner.VanerTagger.v1",
        "max_subwords": MAX_SUBWORDS,
        "dropout": 0.0,
        "adapter": None,
        "window": {
            "@span_getters": "spacy-vaner.packed_sentences.v1",
            "n_words": N_WORDS,
            "overlap": OVERLAP,
        },
        "instruction": {
            "@misc": "spacy-vaner.template_instruction.v1",
            "with_corpus": "{type} in {corpus}: ",
            "without_corpus": "{type}: ",
        },
        "backbone": {
            "@misc": "spacy-vaner.small_llama.v1",
            "hidden_size": 32,
            "n_layers": 2,
            "n_heads": 4,
            "intermediate_size": 64,
            "max_positions": 96,
            "vocab_size": 500,
        },
    },
}


Prediction = tuple[str, int, int, float]
"""Type, start, end, probability."""


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries over each other; a registered function is replaced as a whole."""
    merged = dict(base)
    for key, value in changes.items():
        known = merged.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            is_function = any(name.startswith("@") for name in value)
            merged[key] = value if is_function else merge(known, value)
        else:
            merged[key] = value
    return merged


class Writer:
    """Writes documents with gold mentions, the same ones for the same seed."""

    def __init__(self, nlp: Language, seed: int = 0) -> None:
        self.nlp = nlp
        self.draw = random.Random(seed)

    def doc(self, n_words: int, *, share: float = 0.2, sentences: bool = False) -> Doc:
        """About n_words of filler, a share of it mentions, annotated for both types."""
        return self.annotated(
            " ".join(self._word(share) for _ in range(n_words)), sentences=sentences
        )

    def _word(self, share: float) -> str:
        if self.draw.random() >= share:
            return self.draw.choice(STRANGE if self.draw.random() < 0.05 else FILLERS)
        mention = self.draw.choice(self.draw.choice(list(MENTIONS.values())))
        # Now and then inside a longer word, or without a space before it.
        form = self.draw.choice(["{}-deficient", "({})", *["{}"] * 8])
        return form.format(mention)

    def annotated(self, text: str, *, sentences: bool = False) -> Doc:
        """A text with its known names annotated."""
        doc = self.nlp.make_doc(text)
        if sentences:
            for token in doc:
                token.is_sent_start = token.i % 7 == 0
        gold = Gold(types=tuple(MENTIONS), mentions=tuple(find_mentions(text)))
        doc.user_data[KEY] = gold.to_user_data()
        return doc


def find_mentions(text: str) -> Iterator[Mention]:
    """Where the known names stand in a text; of two that overlap the longer one."""
    taken: set[int] = set()
    names = [(name, type_name) for type_name, names in MENTIONS.items() for name in names]
    for name, type_name in sorted(names, key=lambda pair: -len(pair[0])):
        for match in re.finditer(re.escape(name), text):
            if taken.isdisjoint(range(*match.span())):
                taken.update(range(*match.span()))
                yield Mention(type_name, (match.span(),))


def component_of(nlp: Language) -> VanerNER:
    component = nlp.get_pipe("vaner_ner")
    assert isinstance(component, VanerNER)
    return component


def examples_of(docs: Sequence[Doc]) -> list[Example]:
    return [Example(unannotated_copy(doc), doc) for doc in docs]


def found(doc: Doc) -> list[tuple[str, str]]:
    """Type and text of the predictions, in the order of the text."""
    return [(name, doc.text[start:end]) for name, start, end, _ in predictions(doc)]


def predictions(doc: Doc) -> list[Prediction]:
    return [tuple(values) for values in doc.user_data["vaner_predictions"]]


def assert_same(one: list[Prediction], other: list[Prediction], *, tolerance: float = 1e-5) -> None:
    """The same spans, with the same probabilities up to rounding."""
    assert [values[:3] for values in one] == [values[:3] for values in other]
    for left, right in zip(one, other, strict=True):
        assert abs(left[3] - right[3]) < tolerance


def teach(nlp: Language, *, most_rounds: int = 40) -> None:
    """Train on ever new documents until a probe is predicted without a fault."""
    writer, optimizer = Writer(nlp), Adam(0.005, grad_clip=1.0, L2=0.0, beta2=0.98)
    probe = [Writer(nlp, -n).doc(n, sentences=bool(n % 2)) for n in range(5, 65, 3)]
    n_perfect = 0
    for _ in range(most_rounds):
        for step in range(25):
            docs = [
                writer.doc(4 + step % 13, share=0.4, sentences=bool(step % 3)) for _ in range(8)
            ]
            nlp.update(examples_of(docs), sgd=optimizer)
        if nlp.evaluate(examples_of(probe))["vaner_f"] == 1.0:
            n_perfect += 1
            # From the first success on in small steps, to settle.
            optimizer.learn_rate = 0.001
        if n_perfect == 2:
            return
    raise AssertionError("the tiny tagger did not learn its words")


def save_taught(nlp: Language, path: Path) -> Path:
    """Save a blank pipeline with a tiny tagger that knows MENTIONS by heart; always the same."""
    torch.manual_seed(0)
    nlp.add_pipe("vaner_ner", config=TINY)
    # The tokenizer learns the words of the instruction too.
    docs = [Writer(nlp).doc(2_000), Writer(nlp).annotated("Chemical Gene in : " * 9)]
    nlp.initialize(lambda: examples_of(docs))
    teach(nlp)
    nlp.to_disk(path)
    return path
