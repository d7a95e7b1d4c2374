"""Knowtator, as CRAFT has it: XML beside a text file, one XML file per set of classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from spacy_vaner.corpora.formats.base import (
    Format,
    Note,
    document_path,
    files_in,
    ignore,
    malformed,
    read_text,
    single_line,
    sorted_mentions,
    squeezed,
    written_beside,
)
from spacy_vaner.corpora.formats.xml_nodes import Node, element, escaped, read_nodes
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.types import Mention, Offsets, Record

_PARENTS = 5
_TEXT_FOLDERS = (".", "txt", "articles/txt", "articles")
_JOIN = " ... "
"""Stands between fragments in the text that the format repeats."""


def read(
    path: Path,
    *,
    note: Note = ignore,
    folder_types: bool = False,
    keep: Callable[[str], bool] = lambda id_: True,
) -> Iterator[Record]:
    """Read one XML file, or all below a folder; files about one text make one document.

    Version 1 (`<annotations textSource=…>`) and version 2 (`<knowtator-project>`) are told apart by
    the file. The text is looked for beside the file and in `txt` and `articles/txt` of the folders
    above it. A class such as "CHEBI:17234" makes a mention of type "CHEBI" with that identifier; a
    class without colon is the type.

    folder_types: the type is the name of the XML file's folder instead (of the one above, if that
        is "knowtator").
    keep: says of an identifier whether the document is wanted.
    RAISES VanerError: VE201 to VE203, a malformed file or a text that is not there.
    """
    by_text: dict[str, list[Path]] = {}
    for file in files_in(path, "*.xml"):
        name = file.name.removesuffix(".xml").removesuffix(".knowtator").removesuffix(".txt")
        if keep(name):
            by_text.setdefault(name, []).append(file)
    for name, files in by_text.items():
        text_path = _text_path(files[0], name)
        text = read_text(text_path)
        mentions: list[Mention] = []
        for file in files:
            folder = file.parent.parent if file.parent.name == "knowtator" else file.parent
            found = _mentions(file, text, folder.name if folder_types else None, note)
            mentions += found
        kept = sorted_mentions(mentions, note, str(text_path))
        yield Record(name, text, kept, source=str(text_path))


def _text_path(file: Path, name: str) -> Path:
    parents = [*file.parents][:_PARENTS]
    for parent in parents:
        for folder in _TEXT_FOLDERS:
            if (found := parent / folder / f"{name}.txt").is_file():
                return found
    reason = f"there is no {name}.txt beside it, nor in txt/ or articles/txt/ of a folder above"
    raise VanerError(Messages.VE202.format(path=file, reason=reason))


def _mentions(path: Path, text: str, type_name: str | None, note: Note) -> list[Mention]:
    version_2 = _is_version_2(path)
    root = "knowtator-project" if version_2 else "annotations"
    spans: dict[str, tuple[Node, tuple[Offsets, ...]]] = {}
    classes: dict[str, str] = {}
    for node in read_nodes(path, root, "annotation", "classMention"):
        if node.tag == "classMention":
            classes[_attribute(path, node, "id")] = _class_of(path, node, "mentionClass")
        else:
            reference = node if version_2 else node.first("mention")
            if reference is None:
                raise malformed(path, node.line, "an annotation with a <mention id=…>", "none")
            id_ = _attribute(path, reference, "id")
            if id_ in spans:
                raise malformed(path, node.line, "an identifier that was not used before", id_)
            spans[id_] = node, _fragments(path, node, text, note)
            if version_2:
                classes[id_] = _class_of(path, node, "class")
    mentions = []
    for id_, (node, fragments) in spans.items():
        if id_ not in classes:
            raise malformed(path, node.line, f"a <classMention> with the class of {id_}", "none")
        prefix, colon, _ = classes[id_].partition(":")
        ids = (classes[id_],) if colon or type_name else ()
        mentions.append(Mention(type_name or prefix, fragments, ids))
    return mentions


def _is_version_2(path: Path) -> bool:
    with path.open("rb") as file:
        return b"<knowtator-project" in file.read(2000)


def _class_of(path: Path, node: Node, tag: str) -> str:
    child = node.first(tag)
    if child is None:
        raise malformed(path, node.line, f"<{node.tag}> with a <{tag} id=…>", "none")
    return _attribute(path, child, "id")


def _attribute(path: Path, node: Node, name: str) -> str:
    value = node.attributes.get(name, "").strip()
    if not value:
        raise malformed(path, node.line, f"<{node.tag}> with a {name}", "none")
    return value


def _fragments(path: Path, node: Node, text: str, note: Note) -> tuple[Offsets, ...]:
    fragments, surfaces = [], [child.text for child in node.all("spannedText")]
    for span in node.all("span"):
        start, end = (span.attributes.get(key, "") for key in ("start", "end"))
        if not (start.isdecimal() and end.isdecimal() and int(start) < int(end) <= len(text)):
            expected = f"start < end inside the {len(text)} characters of the text"
            raise malformed(path, span.line, expected, f"{start} {end}")
        fragments.append((int(start), int(end)))
        surfaces += [span.text] if span.text.strip() else []
    if not fragments:
        raise malformed(path, node.line, "an annotation with a <span start=… end=…>", "none")
    fragments.sort()
    given = squeezed(_JOIN.join(surfaces).replace("...", " "))
    found = " ".join(text[start:end] for start, end in fragments).replace("...", " ")
    if given and given != squeezed(found):
        note("misaligned", f"{path}:{node.line}")
    return tuple(fragments)


def write(records: Iterable[Record], path: Path, *, note: Note = ignore, version: int = 2) -> None:
    """Write a folder with ID.txt and ID.xml (version 2) or ID.txt.knowtator.xml (version 1).

    The class of a mention is its first identifier if that begins with "TYPE:", else its type.
    """
    with written_beside(path) as folder:
        folder.mkdir()
        for record in records:
            text_path = document_path(folder, record.id)
            text_path.write_bytes(record.text.encode("utf8"))
            name = text_path.name.removesuffix(".txt")
            if version == 1:
                body, place = _version_1(record, name), folder / f"{name}.txt.knowtator.xml"
            else:
                body, place = _version_2(record, name), folder / f"{name}.xml"
            place.write_bytes(f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'.encode())


def _version_1(record: Record, name: str) -> str:
    annotations, classes = [], []
    for number, mention in enumerate(record.mentions):
        spans = [element("span", start=start, end=end) for start, end in mention.fragments]
        surface = element("spannedText", escaped(_surface(record, mention)))
        id_ = f"Instance_{number}"
        parts = [element("mention", id=id_), *spans, surface]
        annotations.append(element("annotation", "".join(parts)))
        class_ = element("mentionClass", id=_class_id(mention))
        classes.append(element("classMention", class_, id=id_))
    lines = ["", *annotations, *classes, ""]
    return element("annotations", "\n".join(lines), textSource=f"{name}.txt")


def _version_2(record: Record, name: str) -> str:
    annotations = []
    for number, mention in enumerate(record.mentions):
        parts = [element("class", id=_class_id(mention), label=mention.type)]
        for at, (start, end) in enumerate(mention.fragments):
            surface = escaped(record.text[start:end])
            parts.append(element("span", surface, id=f"{number}-{at}", start=start, end=end))
        annotations.append(element("annotation", "".join(parts), id=f"annotation-{number}"))
    inside = "\n".join(["", *annotations, ""])
    document = element("document", inside, id=name, text_file=f"{name}.txt")
    return element("knowtator-project", document)


def _class_id(mention: Mention) -> str:
    type_ = single_line(mention.type)
    matching = [id_ for id_ in mention.ids if id_.startswith(f"{type_}:")]
    return matching[0] if matching else type_


def _surface(record: Record, mention: Mention) -> str:
    return _JOIN.join(record.text[start:end] for start, end in mention.fragments)


FORMAT = Format(
    read,
    "Knowtator XML (CRAFT), versions 1 and 2: a folder, texts beside it or in txt/",
    options=("folder_types",),
    ids_are_pmids=True,
    write=write,
    selects=True,
    carries=frozenset({"text", "nested", "discontinuous"}),
)
