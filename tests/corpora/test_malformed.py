"""Damaged files of every format: the file, the line and what was expected are named, always."""

from __future__ import annotations

import json
import random
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from spacy_vaner.corpora.convert import Conversion, convert
from spacy_vaner.corpora.formats import FORMATS, read_records, write_records
from spacy_vaner.errors import VanerError
from spacy_vaner.types import Mention, Record

NAMES = {"bc2gm": "train.in"}
OPTIONS = {"vaner_jsonl": {"type_name": "Gene"}}
SAID = re.compile(r"VE20[1-7]: ")
RECORDS = [
    Record(
        "1",
        "Breast and ovarian cancer.\tBRCA1 (café) is\nmutated.",
        (
            Mention("Gene", ((0, 6), (19, 25))),
            Mention("Gene", ((11, 25),), ("D1",)),
            Mention("Gene", ((27, 32),), ("672", "673")),
        ),
    ),
    Record("2", "Nothing here & there.", ()),
    Record(
        "3",
        "p53 binds.",
        (Mention("Gene", ((0, 3),)),),
        alternatives=(Mention("Gene", ((0, 9),)),),
    ),
]


def made(folder, name):
    """A sound corpus of a format; the path to read, and its files."""
    file = NAMES.get(name, "corpus")
    for place, content in contents(name, file).items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
    return folder / file, sorted(path for path in folder.rglob("*") if path.is_file())


@cache
def contents(name, file):
    """The files of a sound corpus, written once."""
    with TemporaryDirectory() as folder:
        write_records(RECORDS, Path(folder, file), name, **OPTIONS.get(name, {}))
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def truncated(content, pick):
    return content[: pick.randrange(len(content))]


def other_encoding(content, pick):
    at = pick.randrange(len(content) + 1)
    return content[:at] + b"\xe9\xff" + content[at:]


def far_offset(content, pick):
    numbers = [m.span() for m in re.finditer(rb"(?<![\w-])\d+(?!\w)", content)] or [(0, 0)]
    start, end = pick.choice(numbers)
    return content[:start] + b"99999" + content[end:]


def line_lost(content, pick):
    lines = content.splitlines(keepends=True)
    del lines[pick.randrange(len(lines))]
    return b"".join(lines)


def line_twice(content, pick):
    lines = content.splitlines(keepends=True)
    at = pick.randrange(len(lines))
    return b"".join([*lines[: at + 1], *lines[at:]])


def carriage_returns(content, pick):
    return content.replace(b"\n", b"\r\n")


def tabs(content, pick):
    blanks = [i for i, byte in enumerate(content) if byte == ord(" ")] or [0]
    at = pick.choice(blanks)
    return content[:at] + b"\t" + content[at + 1 :]


def bytes_changed(content, pick):
    changed = bytearray(content)
    for _ in range(3):
        changed[pick.randrange(len(changed))] = pick.choice(b'\0\t\n<>{}[]":,|0aZ\xc3')
    return bytes(changed)


def column_lost(content, pick):
    at = [i for i, byte in enumerate(content) if byte in b"\t,|>"] or [0]
    i = pick.choice(at)
    return content[:i] + content[i + 1 :]


def emptied(content, pick):
    return b""


DAMAGES = [
    truncated,
    other_encoding,
    far_offset,
    line_lost,
    line_twice,
    carriage_returns,
    tabs,
    bytes_changed,
    column_lost,
    emptied,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_damaged_file_is_read_or_named(tmp_path, name, damage):
    """11 formats, 10 kinds of damage, 6 files each; nothing but a VanerError may come out."""
    refused = 0
    for seed in range(6):
        folder = tmp_path / str(seed)
        folder.mkdir()
        pick = random.Random(f"{name} {damage.__name__} {seed}")
        path, files = made(folder, name)
        victim = pick.choice([file for file in files if file.stat().st_size])
        victim.write_bytes(damage(victim.read_bytes(), pick))
        try:
            found = list(read_records(path, name, **OPTIONS.get(name, {})))
        except VanerError as error:
            refused += 1
            assert SAID.match(str(error)), error
            assert str(folder) in str(error)
            assert not str(error).startswith("VE201") or re.search(
                r", line \d+: expected ", str(error)
            )
        else:
            for record in found:
                for mention in record.mentions:
                    assert mention.type.strip()
                    for start, end in mention.fragments:
                        assert 0 <= start < end <= len(record.text)
    if damage is other_encoding and name != "spacy":
        assert refused == 6


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_failing_conversion_leaves_what_was_there(tmp_path, name):
    (tmp_path / "in").mkdir()
    path, files = made(tmp_path / "in", name)
    victim = max(files, key=lambda file: file.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-12] + b"\xff")
    output = tmp_path / "out.spacy"
    output.write_text("before")
    conversion = Conversion((path,), name, options=OPTIONS.get(name, {}), types=("Gene",))
    with pytest.raises(VanerError, match=SAID):
        convert(conversion, output)
    assert output.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] in (["in", "out.spacy"], ["out.spacy", "in"])


BIOC = """<?xml version="1.0"?>
<collection>
<document><id>1</id>
<passage>
<offset>0</offset><text>p53 binds.</text>
<annotation id="0"><infon key="type">Gene</infon>
<location offset="0" length="3"/><text>p53</text></annotation>
</passage>
</document>
</collection>
"""
PASSAGE = {
    "offset": 0,
    "text": "p53 binds.",
    "annotations": [
        {"infons": {"type": "Gene"}, "text": "p53", "locations": [{"offset": 0, "length": 3}]}
    ],
}
BIOC_JSON = '{\n"documents": [\n' + json.dumps({"id": "1", "passages": [PASSAGE]}) + "\n]}\n"
KNOWTATOR_1 = """<annotations textSource="c.txt">
<annotation><mention id="a"/>
<span start="0" end="3"/><spannedText>p53</spannedText></annotation>
<classMention id="a"><mentionClass id="PR:1">x</mentionClass></classMention>
</annotations>
"""
KNOWTATOR_2 = """<knowtator-project><document id="c" text-file="c.txt">
<annotation id="a"><class id="PR:1" label="x"/>
<span start="0" end="3">p53</span></annotation>
</document></knowtator-project>
"""


@pytest.mark.parametrize(
    ("name", "content", "old", "new", "message"),
    [
        ("bioc_xml", BIOC, "<collection>", "<html>", "line 2: expected an element <collection>"),
        ("bioc_xml", BIOC, "</passage>", "", r"line 9: expected XML \(mismatched tag\)"),
        ("bioc_xml", BIOC, "<id>1</id>", "", "line 3: expected a document with an <id>"),
        ("bioc_xml", BIOC, "<text>p53 binds.</text>", "", "line 4: expected a passage with <text>"),
        ("bioc_xml", BIOC, "<offset>0</offset>", "", "line 5: expected .*|line 4: .*<offset>"),
        ("bioc_xml", BIOC, 'offset="0"', 'offset="-1"', "line 7: expected a number as offset"),
        ("bioc_xml", BIOC, 'length="3"', 'length="30"', "line 6: expected a location inside"),
        ("bioc_xml", BIOC, 'length="3"', "", "line 7: expected a number as length"),
        ("bioc_xml", BIOC, 'key="type"', 'key="kind"', "line 6: .* an infon 'type' and a location"),
        ("bioc_json", BIOC_JSON, "]}", "]", r"line \d: expected JSON"),
        ("bioc_json", BIOC_JSON, '"passages"', '"pages"', "line 3: expected a document with"),
        ("bioc_json", BIOC_JSON, '"id": "1"', '"id": null', 'line 3: .* a document with an "id"'),
        ("bioc_json", BIOC_JSON, '"text": "p53 binds."', '"x": 1', 'line 3: .*passage with "text"'),
        ("bioc_json", BIOC_JSON, '"length": 3', '"length": 30', "line 3: .* a location inside"),
        ("bioc_json", BIOC_JSON, '"locations"', '"places"', "line 3: .* an annotation with"),
        ("bioc_json", "7\n", "7", "8", "line 1: expected a document with"),
        ("knowtator", KNOWTATOR_1, 'end="3"', 'end="30"', "line 3: .* inside the 10 characters"),
        ("knowtator", KNOWTATOR_1, '<mention id="a"/>', "", "line 2: .* with a <mention id=…>"),
        ("knowtator", KNOWTATOR_1, 'classMention id="a"', 'classMention id="b"', "the class of a"),
        ("knowtator", KNOWTATOR_1, ' id="PR:1"', "", "line 4: expected <mentionClass> with a id"),
        ("knowtator", KNOWTATOR_1, '<span start="0" end="3"/>', "", "line 2: .*with a <span"),
        ("knowtator", KNOWTATOR_2, "<span ", "<spam ", r"line 3: expected XML \(mismatched"),
        ("knowtator", KNOWTATOR_2, '<class id="PR:1" label="x"/>', "", "line 2: .*with a <class"),
        ("knowtator", KNOWTATOR_2, 'start="0"', 'start="3"', "line 3: expected start < end"),
        ("knowtator", KNOWTATOR_2, "knowtator-project", "project", "line 1: .*<annotations>"),
        (
            "vaner_jsonl",
            '{"tokens": ["I", "a"], "ner_tags": [1]}',
            "[1]",
            "[3]",
            "line 1: .*tags 0",
        ),
        ("vaner_jsonl", '{"tokens": ["I", "a"], "ner_tags": [1]}', "[1]", "[1, 2]", "one per word"),
        (
            "vaner_jsonl",
            '{"tokens": ["I", "a"], "ner_tags": [1]}',
            '"a"',
            '""',
            "line 1: .*not empty",
        ),
        (
            "spacy_json",
            '{"text": "p53",\n "ents": []}',
            "[]",
            '[{"start": 0}]',
            "line 1: .*a mention",
        ),
        ("spacy_json", '[{"text": "p53"},\n{"text": ""}]', '"text": ""', "", 'line 2: .*"text"'),
        ("spacy_json", '[{"text": "p53"},\n{"text": ""}]', "}]", "}", r"line 2: expected JSON"),
        ("spacy_json", '{"text": "p53", "label": [[0, 3, "G"]]}', "3", "4", "line 1: .*a mention"),
    ],
)
def test_a_malformed_element_is_named(tmp_path, name, content, old, new, message):
    path = tmp_path / "c.xml"
    (tmp_path / "c.txt").write_text("p53 binds.")
    path.write_text(content)
    options = OPTIONS.get(name, {})
    list(read_records(path, name, **options)) if name != "bioc_json" or content != "7\n" else None
    assert old in content
    path.write_text(content.replace(old, new))
    with pytest.raises(VanerError, match=rf"VE201: .*c\.xml, .*{message}"):
        list(read_records(path, name, **options))


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ("T1\tGene 0 3 p53\n", r"line 1: expected 'T1<tab>Type start end<tab>text'"),
        ("T1\tGene 0 3\tp53\nT1\tGene 0 3\tp53\n", "line 2: expected an identifier other than T1"),
        ("T1\tGene 3 3\t\n", "line 1: expected start < end inside the 10 characters"),
        ("T1\tGene 0 3;8 11\tp53 ds.\n", "line 1: expected start < end inside"),
        ("N1\tReference T1 X:1\tx\n", "line 1: expected 'N1<tab>Reference T1 identifier'"),
        ("hello\n", "line 1: expected .*or a line R, E"),
    ],
)
def test_a_malformed_brat_line_is_named(tmp_path, annotations, message):
    (tmp_path / "c.txt").write_text("p53 binds.")
    (tmp_path / "c.ann").write_text(annotations)
    with pytest.raises(VanerError, match=rf"VE201: .*c\.ann, {message}"):
        list(read_records(tmp_path, "brat"))


@pytest.mark.parametrize(
    ("sentences", "answers", "message"),
    [
        ("P1\n", "", r"train\.in, line 1: expected an identifier, a blank and a sentence"),
        ("P1 p53 binds.\n", "P1|0 2\n", r"GENE\.eval, line 1: expected 'ID\|first last\|text'"),
        (
            "P1 p53 binds.\n",
            "P1|0 9|x\n",
            r"GENE\.eval, line 1: expected first <= last among the 9",
        ),
        ("P1 p53 binds.\n", "P2|0 2|p53\n", r"GENE\.eval, line 1: .*in train\.in once; found: P2"),
        ("P1 p53 binds.\nP1 p53 ends.\n", "P1|0 2|p53\n", None),
    ],
)
def test_a_malformed_bc2gm_file_is_named(tmp_path, sentences, answers, message):
    (tmp_path / "train.in").write_text(sentences)
    (tmp_path / "GENE.eval").write_text(answers)
    if message is None:
        assert len(list(read_records(tmp_path / "train.in", "bc2gm"))) == 2
        return
    with pytest.raises(VanerError, match=f"VE201: .*{message}"):
        list(read_records(tmp_path / "train.in", "bc2gm"))


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("brat", "c.txt", r"VE202: .*c\.txt .*there is no c\.ann \(nor \.a1\) beside it"),
        ("brat", ".", r"VE202: .*the folder holds no \*\.ann or \*\.a1 or \*\.a2"),
        ("brat", "d", "VE202: .*No such file"),
        ("bc2gm", "c.txt", "VE202: .*no .eval file"),
        ("bc2gm", ".", r"VE202: .*give the file of its sentences \(train\.in"),
        ("knowtator", ".", r"VE202: .*the folder holds no \*\.xml"),
        ("spacy", "c.txt", "VE202: .*DocBin"),
    ],
)
def test_what_is_missing_is_named(tmp_path, name, file, message):
    (tmp_path / "c.txt").write_text("p53 binds.")
    with pytest.raises(VanerError, match=message):
        list(read_records(tmp_path / file, name))
