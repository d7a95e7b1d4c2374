"""Texts into token ids: nothing lost, nothing twice, resumable, bad input named by its line."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy
import pytest

from spacy_vaner.backbone import SubwordTokenizer
from spacy_vaner.errors import VanerError
from spacy_vaner.training import prepare as prepare_module
from spacy_vaner.training.prepare import prepare
from spacy_vaner.training.protected import ProtectedRuns
from spacy_vaner.training.sources import find_sources, read_documents
from spacy_vaner.training.token_file import HEADER_FILE, Header, PreparedText, Vocabulary

RUN = "one two three four five six seven eight nine ten eleven twelve"
NAMES = (
    "name\ttype\tid\tsource\n"
    "asthma\tDisease\tD1\tx\nbronchial asthma\tDisease\tD1\tx\naspirin\tChemical\tC1\tx\n"
    "ASA\tChemical\tC1\tx\nzinc\tChemical\t\tx\n"
)


def expected_ids(texts: list[str], tokenizer: SubwordTokenizer) -> list[int]:
    return [
        id_
        for text in texts
        for id_ in [*tokenizer.encode_instruction(""), *tokenizer.encode(text)[0]]
    ]


@pytest.mark.parametrize("suffix", [".txt", ".txt.xz"])
def test_ids_are_those_of_the_tokenizer_document_by_document(
    texts: list[str], tokenizer: SubwordTokenizer, tokenizer_path: Path, tmp_path: Path, suffix: str
) -> None:
    texts = [*texts[:5], "<s> <mask> is text, \U0001f600 too", "ﬁ \u2028x"]
    content = "\n\n".join(texts).encode("utf8")
    path = tmp_path / f"some{suffix}"
    path.write_bytes(lzma.compress(content) if suffix.endswith("xz") else content)
    header = prepare(
        find_sources([tmp_path]), tmp_path / "ids", tokenizer_path=tokenizer_path, dev_share=0
    )
    prepared = PreparedText.open(tmp_path / "ids")
    assert prepared.train.tolist() == expected_ids(texts, tokenizer)
    assert len(prepared.dev) == 0
    counts = header.sources[0]
    assert (counts.n_documents, counts.n_empty, counts.n_protected) == (7, 6, 0)
    assert counts.n_words == sum(len(text.split()) for text in texts)
    assert counts.n_subwords == len(prepared.train) and counts.share == 1.0
    assert Header.from_folder(tmp_path / "ids") == header
    assert not list(tmp_path.glob("*.part"))
    assert str(tmp_path) not in (tmp_path / "ids" / HEADER_FILE).read_text("utf8")


def test_dev_documents_are_chosen_by_their_text_alone(
    texts: list[str], tokenizer: SubwordTokenizer, tokenizer_path: Path, tmp_path: Path
) -> None:
    def split(order: list[str], name: str) -> tuple[list[int], list[int]]:
        (tmp_path / f"{name}.txt").write_text("\n".join(order), encoding="utf8")
        sources = find_sources([tmp_path / f"{name}.txt"])
        prepare(sources, tmp_path / name, tokenizer_path=tokenizer_path, dev_share=0.3)
        prepared = PreparedText.open(tmp_path / name)
        return prepared.train.tolist(), prepared.dev.tolist()

    train, dev = split(texts, "a")
    assert dev and train
    assert sorted(train + dev) == sorted(expected_ids(texts, tokenizer))
    reversed_train, reversed_dev = split(texts[::-1], "b")
    assert sorted(reversed_dev) == sorted(dev) and sorted(reversed_train) == sorted(train)


def test_documents_that_share_twelve_words_are_left_out_and_counted(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    protected = ProtectedRuns.from_texts([f"Before, {RUN} after."])
    lines = [
        f"x {RUN.upper().replace(' ', ', ')}!",  # other case and punctuation
        RUN.replace("two", "2"),
        " ".join(RUN.split()[:11]),
    ]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    header = prepare(
        find_sources([tmp_path / "t.txt"]),
        tmp_path / "ids",
        tokenizer_path=tokenizer_path,
        protected=protected,
        dev_share=0,
    )
    assert (header.sources[0].n_protected, header.sources[0].n_documents) == (1, 2)
    assert header.protected == protected.fingerprint()


def test_protected_runs_survive_their_file(tmp_path: Path) -> None:
    runs = ProtectedRuns.from_texts([RUN, RUN + " thirteen"])
    assert len(runs) == 2
    runs.to_file(tmp_path / "runs")
    again = ProtectedRuns.from_file(tmp_path / "runs")
    assert again.fingerprint() == runs.fingerprint()
    assert again.shares_run("0 " + RUN) and not again.shares_run(RUN[4:])
    assert not ProtectedRuns.from_texts([]).shares_run(RUN)
    (tmp_path / "runs").write_bytes(b"no")
    with pytest.raises(VanerError, match="VE516"):
        ProtectedRuns.from_file(tmp_path / "runs")


def test_names_of_a_concept_stand_together_with_their_type(tmp_path: Path) -> None:
    path = tmp_path / "names.tsv"
    path.write_text(NAMES)
    source = find_sources([path], {"names.tsv": 3})[0]
    documents = list(read_documents(source))
    assert len(documents) == 3 and len(set(documents)) > 1
    for document in documents:
        phrases = document.replace(". ", ".\n").splitlines()
        names = {tuple(sorted(phrase.rstrip(".").split(": ")[1].split("; "))) for phrase in phrases}
        assert names == {("asthma", "bronchial asthma"), ("ASA", "aspirin"), ("zinc",)}
        assert sorted(p.partition(":")[0] for p in phrases) == ["Chemical", "Chemical", "Disease"]


def test_names_are_for_training_only(tokenizer_path: Path, tmp_path: Path) -> None:
    (tmp_path / "names.tsv").write_text(NAMES)
    header = prepare(
        find_sources([tmp_path / "names.tsv"]),
        tmp_path / "ids",
        tokenizer_path=tokenizer_path,
        dev_share=1,
    )
    assert header.n_documents == {"train": 1, "dev": 0}


def test_an_interrupted_preparation_goes_on_where_it_was(
    texts: list[str], tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        lines = texts[4 * number : 4 * number + 4]
        (tmp_path / f"{number}.txt").write_text("\n".join(lines), encoding="utf8")
    sources = find_sources([tmp_path / f"{number}.txt" for number in range(3)])
    whole = prepare(sources, tmp_path / "whole", tokenizer_path=tokenizer_path)

    read: list[str] = []

    def reading(source, stop_at=None):  # type: ignore[no-untyped-def]
        read.append(source.path.name)
        for number, document in enumerate(read_documents(source)):
            if source.path.name == stop_at and number == 2:
                raise KeyboardInterrupt
            yield document

    monkeypatch.setattr(prepare_module, "_BATCH_CHARACTERS", 1)
    monkeypatch.setattr(prepare_module, "read_documents", lambda s: reading(s, "1.txt"))
    with pytest.raises(KeyboardInterrupt):
        prepare(sources, tmp_path / "ids", tokenizer_path=tokenizer_path)
    assert not (tmp_path / "ids").exists()
    read.clear()
    monkeypatch.setattr(prepare_module, "read_documents", reading)
    assert prepare(sources, tmp_path / "ids", tokenizer_path=tokenizer_path) == whole
    assert read == ["1.txt", "2.txt"]
    # Up to date: nothing is read again. A changed file: all is made anew, nothing old is left.
    read.clear()
    assert prepare(sources, tmp_path / "ids", tokenizer_path=tokenizer_path) == whole
    assert read == []
    (tmp_path / "2.txt").write_text("new")
    changed = prepare(sources, tmp_path / "ids", tokenizer_path=tokenizer_path)
    assert changed.sha256 != whole.sha256
    names = {"train.ids", "dev.ids", HEADER_FILE, "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "ids").iterdir()} == names
    PreparedText.open(tmp_path / "ids")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"fine\nnot \xe9 fine\n", "VE503.*a.txt, line 2.*0xe9"),
        ("a.txt.xz", lzma.compress(b"line\n" * 9000)[:-30], "VE504.*a.txt.xz"),
        ("a.txt.xz", b"no xz", "VE504.*after line 0"),
        ("a.tsv", b"name\tid\nx\t1\n", "VE505.*line 1.*'type'"),
        ("a.tsv", b"name\ttype\tid\nx\tDisease\n", "VE505.*line 2.*3 columns"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    tokenizer_path: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    sources = find_sources([tmp_path / name])
    with pytest.raises(VanerError, match=message):
        prepare(sources, tmp_path / "ids", tokenizer_path=tokenizer_path)
    assert not (tmp_path / "ids").exists()


def test_paths_that_are_no_sources(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    for path in (tmp_path / "missing.txt", tmp_path / "a.pdf", tmp_path):
        with pytest.raises(VanerError, match="VE506"):
            find_sources([path])
    (tmp_path / "a.txt").touch()
    with pytest.raises(VanerError, match="VE520.*b.txt"):
        find_sources([tmp_path], {"b.txt": 2})


def test_an_output_that_is_something_else_is_left_alone(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/work").touch()
    with pytest.raises(VanerError, match="VE519"):
        prepare(
            find_sources([tmp_path / "a.txt"]), tmp_path / "mine", tokenizer_path=tokenizer_path
        )
    assert (tmp_path / "mine/work").exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "header", "missing", "tokenizer"])
def test_a_damaged_folder_is_refused(prepared_path: Path, tmp_path: Path, damage: str) -> None:
    for path in prepared_path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    ids = (tmp_path / "train.ids").read_bytes()
    if damage == "cut":
        (tmp_path / "train.ids").write_bytes(ids[:-2])
    elif damage == "flip":
        (tmp_path / "train.ids").write_bytes(ids[:-1] + bytes([ids[-1] ^ 1]))
    elif damage == "header":
        (tmp_path / HEADER_FILE).write_text('{"format_version": 9}')
    elif damage == "missing":
        (tmp_path / "dev.ids").unlink()
    else:
        config = tmp_path / "tokenizer_config.json"
        config.write_text(config.read_text().replace('"<s>"', '"</s>"'))
    with pytest.raises(VanerError, match="VE507"):
        PreparedText.open(tmp_path)


def test_the_vocabulary_knows_words_and_special_subwords(
    tokenizer: SubwordTokenizer, tokenizer_path: Path
) -> None:
    vocabulary = Vocabulary.of_tokenizer(tokenizer, path=tokenizer_path)
    ids = tokenizer.encode("Acute BRCA1-deficient 37")[0]
    starts = [i for i, id_ in enumerate(ids) if vocabulary.starts_word[id_]]
    assert len(starts) == 3 and starts[0] == 0
    assert not vocabulary.is_special[ids].any()
    (bos,) = tokenizer.encode_instruction("")
    assert vocabulary.is_special[[bos, vocabulary.mask_id]].all()
    assert (
        numpy.intersect1d(vocabulary.ordinary, numpy.flatnonzero(vocabulary.is_special)).size == 0
    )
