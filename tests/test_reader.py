"""The training reader: epochs, mixtures, what is asked, what is protected, errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example

from spacy_vaner.corpora.guard import ProtectedIndex
from spacy_vaner.errors import VanerError
from spacy_vaner.gold import KEY, Gold, get_ask, get_gold
from spacy_vaner.reader import corpus_reader
from spacy_vaner.types import Mention

NLP = spacy.blank("en")
LONG = "The patients with hereditary breast cancer were treated with tamoxifen for five years ."


@pytest.fixture
def nlp() -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("vaner_ner", config={"types": ["Disease", "Chemical"]})
    return nlp


def make_doc(text: str, **gold: Any) -> Doc:
    doc = NLP.make_doc(text)
    values = {"types": ("Disease",), "corpus": "ncbi", "names": {"Disease": "NCBI"}, **gold}
    doc.user_data[KEY] = Gold(**values).to_user_data()
    return doc


def write(path: Path, docs: Sequence[Doc]) -> Path:
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., str]:
    """A file of documents "NAME 0", "NAME 1", …"""

    def make(name: str, n: int, **gold: Any) -> str:
        docs = [make_doc(f"{name.split('.')[0]} {i}", **gold) for i in range(n)]
        return str(write(tmp_path / f"{name}.spacy", docs))

    return make


def texts(examples: Sequence[Example]) -> list[str]:
    return [example.reference.text for example in examples]


def test_documents_are_read_in_order(make_file: Callable[..., str], nlp: Language) -> None:
    corpus = corpus_reader([make_file("b", 2), make_file("a", 2)])
    assert texts(list(corpus(nlp))) == ["b 0", "b 1", "a 0", "a 1"]
    assert texts(list(corpus(nlp))) == ["b 0", "b 1", "a 0", "a 1"]


def test_both_sides_of_an_example_are_what_they_should_be(tmp_path: Path, nlp: Language) -> None:
    text = " Fever  and\naspirin."
    doc = make_doc(
        text,
        types=("Gene", "Disease"),
        partial=("Chemical",),
        mentions=(Mention("Disease", ((1, 6),)),),
    )
    for token in doc:
        token.is_sent_start = token.i in (0, 4)
    doc.set_ents([Span(doc, 1, 2, "Disease")])
    corpus = corpus_reader(str(write(tmp_path / "x.spacy", [doc])))
    (example,) = corpus(nlp)
    predicted, reference = example.predicted, example.reference
    assert predicted.text == reference.text == text
    assert [token.text for token in predicted] == [token.text for token in doc]
    assert [token.is_sent_start for token in predicted] == [t.is_sent_start for t in doc]
    assert not predicted.has_annotation("ENT_IOB")
    gold = get_gold(reference)
    assert gold is not None and gold.mentions == (Mention("Disease", ((1, 6),)),)
    # Asked is what is annotated completely and what the pipeline knows, under the corpus's names.
    assert predicted.user_data[KEY] == {
        "ask": {"types": ["Disease"], "corpus": {"Disease": "NCBI"}}
    }


def test_documents_without_sentences_and_annotation(tmp_path: Path, nlp: Language) -> None:
    corpus = corpus_reader(str(write(tmp_path / "x.spacy", [NLP.make_doc("Fever again")])))
    (example,) = corpus(nlp)
    assert not example.predicted.has_annotation("SENT_START")
    assert KEY not in example.predicted.user_data


def epochs(corpus: Any, nlp: Language, n: int = 4) -> list[list[str]]:
    return [texts(list(corpus(nlp))) for _ in range(n)]


def test_epochs_follow_from_seed_and_number(make_file: Callable[..., str], nlp: Language) -> None:
    path = make_file("a", 12)

    def shuffled(seed: int) -> list[list[str]]:
        return epochs(corpus_reader(path, shuffle=True, seed=seed, weights={"a": 1.5}), nlp)

    first = shuffled(0)
    assert shuffled(0) == first
    assert shuffled(1) != first
    # Every epoch is another one, the first two too.
    assert len({tuple(epoch) for epoch in first}) == 4
    assert all(set(epoch) == set(first[0]) for epoch in first)


def test_training_starts_at_the_epoch_that_initialisation_read(
    make_file: Callable[..., str], nlp: Language
) -> None:
    """`spacy train` makes a reader to initialise and another one to train (spaCy 3.8)."""
    settings = {"@readers": "spacy-vaner.Corpus.v1", "paths": make_file("a", 9), "shuffle": True}
    config = {"corpora": {"train": settings}}
    resolve = spacy.util.registry.resolve
    initialising = resolve(config)["corpora"]["train"]
    read_first = epochs(initialising, nlp, 3)[0]
    assert epochs(resolve(config)["corpora"]["train"], nlp, 1)[0] == read_first


def test_weights_repeat_and_sample(make_file: Callable[..., str], nlp: Language) -> None:
    paths = [make_file("a.train", 40), make_file("b", 5), make_file("c", 5, corpus="third")]
    corpus = corpus_reader(paths, weights={"a.train": 0.5, "b": 2, "third": 0})
    counted = [Counter(text[0] for text in epoch) for epoch in epochs(corpus, nlp, 8)]
    assert all(count["b"] == 10 and count["c"] == 0 for count in counted)
    drawn = [count["a"] for count in counted]
    # Binomial(40, 0.5): the mean of 8 draws lies within 4 standard errors.
    assert abs(sum(drawn) / 8 - 20) < 4 * (40 * 0.25 / 8) ** 0.5
    assert len(set(drawn)) > 1


def test_every_document_is_drawn_in_some_epoch(
    make_file: Callable[..., str], nlp: Language
) -> None:
    corpus = corpus_reader(make_file("a", 10), weights={"a": 0.5})
    assert {text for epoch in epochs(corpus, nlp, 20) for text in epoch} == {
        f"a {i}" for i in range(10)
    }


def test_the_corpus_name_is_dropped_from_a_share(
    make_file: Callable[..., str], nlp: Language
) -> None:
    path = make_file("a", 400)

    def named(share: float) -> int:
        examples = corpus_reader(path, drop_corpus=share)(nlp)
        names = [get_ask(example.predicted)["corpus"] for example in examples]
        assert all(name in (None, {"Disease": "NCBI"}) for name in names)
        return sum(name is not None for name in names)

    assert named(0.0) == 400
    assert named(1.0) == 0
    # Binomial(400, 0.75), 4 standard deviations
    assert abs(named(0.25) - 300) < 4 * (400 * 0.1875) ** 0.5


def test_a_limit_holds_per_epoch_and_after_shuffling(
    make_file: Callable[..., str], nlp: Language
) -> None:
    path = make_file("a", 10)
    assert texts(list(corpus_reader(path, limit=3)(nlp))) == ["a 0", "a 1", "a 2"]
    drawn = epochs(corpus_reader(path, limit=3, shuffle=True), nlp, 10)
    assert all(len(epoch) == 3 for epoch in drawn)
    assert len({text for epoch in drawn for text in epoch}) > 3


def test_a_folder_gives_the_files_of_the_split(
    make_file: Callable[..., str], tmp_path: Path, nlp: Language
) -> None:
    for name in ("b.train", "a.train", "a.dev", "train"):
        make_file(name, 1)
    extra = make_file("x", 1)
    assert texts(list(corpus_reader(str(tmp_path))(nlp))) == ["a 0", "b 0"]
    assert texts(list(corpus_reader([str(tmp_path)], split="dev")(nlp))) == ["a 0"]
    # One string, commas between, as on a command line; a file that is named twice is read once.
    both = f"{extra}, {tmp_path},{extra}"
    assert texts(list(corpus_reader(both)(nlp))) == ["x 0", "a 0", "b 0"]


def test_another_pipeline_gets_documents_of_its_own_vocabulary(
    make_file: Callable[..., str], nlp: Language
) -> None:
    corpus = corpus_reader(make_file("a", 1))
    other = spacy.blank("en")
    for pipeline in (nlp, other, nlp):
        (example,) = corpus(pipeline)
        assert example.reference.vocab is example.predicted.vocab is pipeline.vocab


def test_protected_documents_are_left_out_and_protected_sentences_masked(
    tmp_path: Path, nlp: Language
) -> None:
    write(tmp_path / "p.test.spacy", [make_doc("Something else.", corpus="p", pmid="7")])
    write(tmp_path / "p.dev.spacy", [make_doc(LONG, corpus="p")])
    train = [
        make_doc("A document with the PMID of a test document.", pmid="7"),
        make_doc(f"Fever was common. {LONG}", masked=((0, 5),)),
        make_doc("Nothing of it is protected."),
    ]
    path = str(write(tmp_path / "t.train.spacy", train))
    corpus = corpus_reader(path, protect=str(tmp_path))
    examples = list(corpus(nlp))
    assert texts(examples) == [train[1].text, train[2].text]
    first, second = (get_gold(example.reference) for example in examples)
    assert first is not None and second is not None
    assert first.masked == ((0, 5), (18, 18 + len(LONG)))
    assert second.masked == ()
    assert corpus.guard_counts.checked == 3
    assert dict(corpus.guard_counts.dropped) == {"PMID": 1}
    # Of a folder that was filled by a conversion, what protected that.
    ProtectedIndex().to_file(tmp_path / "protected.msgpack")
    corpus = corpus_reader(path, protect=str(tmp_path))
    assert len(list(corpus(nlp))) == 3
    index = ProtectedIndex.from_files(test=[tmp_path / "p.test.spacy"])
    index.to_file(tmp_path / "own.msgpack")
    corpus = corpus_reader(path, protect=[str(tmp_path), str(tmp_path / "own.msgpack")])
    assert len(list(corpus(nlp))) == 2
    # Files may be named too; the name says whether documents or sentences are protected.
    corpus = corpus_reader(path, protect=[str(tmp_path / "p.dev.spacy")])
    assert len(list(corpus(nlp))) == 3


@pytest.mark.parametrize(
    "settings, number",
    [
        ({"drop_corpus": 1.5}, "VE303"),
        ({"drop_corpus": -0.1}, "VE303"),
        ({"weights": {"a": -1.0}}, "VE304"),
        ({"limit": -1}, "VE307"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(settings: Any, number: str) -> None:
    with pytest.raises(VanerError, match=number):
        corpus_reader("a.spacy", **settings)


def test_paths_that_are_not_there(
    make_file: Callable[..., str], tmp_path: Path, nlp: Language
) -> None:
    nothing: list[str | list[str] | None] = [None, [], "", " , "]
    for paths in nothing:
        with pytest.raises(VanerError, match="VE305.*paths.train"):
            corpus_reader(paths)(nlp)
    with pytest.raises(VanerError, match=r"VE301.*missing\.spacy"):
        corpus_reader(str(tmp_path / "missing.spacy"))(nlp)
    with pytest.raises(VanerError, match=r"VE302.*\*\.train\.spacy"):
        corpus_reader(str(tmp_path))(nlp)
    with pytest.raises(VanerError, match=r"VE301.*nowhere"):
        corpus_reader(make_file("a", 1), protect="nowhere")(nlp)
    with pytest.raises(VanerError, match="VE309"):
        corpus_reader(make_file("a", 1), protect=str(tmp_path))(nlp)


def test_a_weight_for_a_name_that_nothing_has_is_refused(
    make_file: Callable[..., str], nlp: Language
) -> None:
    with pytest.raises(VanerError, match="VE308.*'typo'"):
        corpus_reader(make_file("a", 1), weights={"a": 2, "typo": 3})(nlp)


def test_a_reader_that_would_read_nothing_says_so(
    make_file: Callable[..., str], tmp_path: Path, nlp: Language
) -> None:
    # spaCy would go round and round its empty epochs without a word.
    with pytest.raises(VanerError, match="VE306"):
        corpus_reader(make_file("empty", 0))(nlp)
    with pytest.raises(VanerError, match="VE306"):
        corpus_reader(make_file("a", 3), weights={"a": 0})(nlp)
    write(tmp_path / "p.test.spacy", [make_doc(LONG, corpus="p", pmid="7")])
    train = str(write(tmp_path / "t.spacy", [make_doc("All of it.", pmid="7")]))
    with pytest.raises(VanerError, match="VE306.*leakage guard"):
        corpus_reader(train, protect=str(tmp_path / "p.test.spacy"))(nlp)


@pytest.mark.parametrize("content", [b"", b"not a DocBin", b"\x00" * 200])
def test_a_file_of_another_form_is_named(content: bytes, tmp_path: Path, nlp: Language) -> None:
    path = tmp_path / "x.spacy"
    path.write_bytes(content)
    with pytest.raises(VanerError, match=r"VE202.*x\.spacy"):
        list(corpus_reader(str(path))(nlp))


def test_a_cut_off_file_is_named(make_file: Callable[..., str], nlp: Language) -> None:
    path = Path(make_file("a", 50))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(VanerError, match=r"VE202.*a\.spacy"):
        list(corpus_reader(str(path))(nlp))


def test_annotation_of_another_form_names_the_document(tmp_path: Path, nlp: Language) -> None:
    doc = NLP.make_doc("Fever again")
    doc.user_data[KEY] = {"types": ["Disease"], "mentions": [["Disease", 0, 5]]}
    path = str(write(tmp_path / "x.spacy", [doc]))
    with pytest.raises(VanerError, match="VE015.*Fever again"):
        list(corpus_reader(path)(nlp))
