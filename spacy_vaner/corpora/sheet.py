"""The data sheet docs/corpora.md: what each corpus holds, and what its mentions look like.

A sheet has a part per corpus. What the catalogue says is written anew every time; what was counted
in the files stands between two comments and is taken over from the sheet before, unless the corpus
is at hand.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from heapq import nsmallest
from pathlib import Path

from spacy_vaner.corpora.batch import corpora_there, protection
from spacy_vaner.corpora.catalogue import Corpus, View, catalogue, catalogue_conversion
from spacy_vaner.corpora.convert import Progress, records
from spacy_vaner.corpora.guard import GuardCounts, ProtectedIndex
from spacy_vaner.corpora.report import ConversionReport
from spacy_vaner.files import write_whole
from spacy_vaner.types import Mention, Offsets, Record

N_EXAMPLES = 10
_AROUND = 36
"""Characters of context on each side."""
_SPLITS = ("train", "dev", "test")
_HEAD = """\
# The corpora

Written by `python -m spacy vaner corpora --sheet docs/corpora.md --corpora-dir DIR`; do not edit.

Every corpus that `python -m spacy vaner convert --corpus NAME` knows, with what its annotators
marked, whether they marked all of it (*complete*) or only part (*partial*: trained on inside of
mentions only, never scored), counts per split, and ten mentions of each type as they stand in the
text, drawn at random from the training split (from the only one, where there is no other).
A discontinuous mention is shown from its first fragment to its last.

*After the guard* is what is left of a training split once the documents that share a PubMed
identifier or a sentence with a protected split of another corpus are left out, and the sentences
that are shared with a dev split masked. Protected are the corpora that figures are reported on: the
paper's, CRAFT as a whole (*held out*), AnatEM and BioRED; `--protect NAME` adds others, as whoever
reports a figure on one must ([conversion.md](conversion.md) tells what that costs). BC4CHEMD was
not at hand and could not protect; with it, less may be left of the corpora with chemicals.

The corpora come from their public sources, under their own licences; none of them is in this
package. The folder that `--corpora-dir` names holds them at the places given below as *files*: as
the source has them, or, where the format is jsonl, written from what it has (PubTator, BioC,
brat, …) as here:

```python
from pathlib import Path
from spacy_vaner.corpora.formats import read_records, write_records

records = read_records(Path("project/corpora/sample/sample.test.pubtator"), "pubtator")
write_records(records, Path("corpora/mine/test.jsonl"), "jsonl")
```

A corpus of your own needs no place there: `convert INPUT OUTPUT --format …` reads it.
"""


def write_sheet(path: Path, corpora_dir: Path | None, *, progress: Progress = iter) -> list[str]:
    """Write the sheet; the corpora that are wholly below a folder are counted.

    progress: wraps the stream of records, of what is protected first.
    RETURNS: the corpora that were counted.
    RAISES VanerError: VE201 to VE203, a malformed file.
    """
    measured = {}
    if corpora_dir is not None:
        guard = protection(corpora_dir).index(progress=progress)
        for name in corpora_there(corpora_dir):
            measured[name] = measure(catalogue()[name], corpora_dir, guard, progress=progress)
    previous = path.read_text(encoding="utf8") if path.exists() else ""
    write_whole(path, make_sheet(previous, measured).encode("utf8"))
    return [*measured]


def make_sheet(previous: str, measured: Mapping[str, str]) -> str:
    """The sheet.

    previous: the sheet before; what was counted for corpora that are not at hand comes from it.
    measured: corpus -> what measure() gives.
    """
    counted = {**_measured_in(previous), **measured}
    parts = [_HEAD, _overview(catalogue().values())]
    for corpus in catalogue().values():
        block = counted.get(corpus.name, "Not counted here: the corpus was not at hand.\n")
        parts.append(f"{_described(corpus)}\n{_begin(corpus.name)}\n{block}{_END}\n")
    return "\n".join(parts)


def measure(
    corpus: Corpus, corpora_dir: Path, guard: ProtectedIndex, *, progress: Progress = iter
) -> str:
    """Counts and examples of a corpus whose files are there.

    RAISES VanerError: VE214, a file is missing; VE201 to VE203, a malformed file.
    """
    lines = [
        "| view | split | documents | sentences | mentions | after the guard |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    examples: list[str] = []
    for name, view in corpus.views.items():
        drawn_from = next(split for split in _SPLITS if split in view.files)
        for split in (split for split in _SPLITS if split in view.files):
            conversion = catalogue_conversion(corpus.name, name, split, corpora_dir=corpora_dir)
            report, counts, left = ConversionReport(), GuardCounts(), Counter[str]()
            sample = _Sample(corpus.name)
            for record in records(conversion, report, progress=progress):
                report.add_record(record, n_tokens=0, n_widened=0)
                if split == "train" and not view.is_held_out(split):
                    verdict = guard.check_text(record.text, corpus=corpus.name, pmid=record.pmid)
                    counts.add(verdict)
                    if not verdict.dropped:
                        left.update(_types_left(record, verdict.masked))
                if split == drawn_from:
                    sample.add(record)
            lines.append(
                f"| {name} | {split} | {report.documents} | {report.sentences or '–'} "
                f"| {_counted(report.mentions)}{_alternatives(report)} "
                f"| {_guarded(view, split, report, counts, left)} |"
            )
            if split == drawn_from and _shows_examples(corpus, name):
                examples += sample.lines((*view.types, *view.partial))
    return "\n".join([*lines, "", *examples]) + "\n"


def _types_left(record: Record, masked: Iterable[Offsets]) -> list[str]:
    stretches = list(masked)
    return [
        mention.type
        for mention in record.mentions
        if not any(
            start < mention.fragments[-1][1] and mention.fragments[0][0] < end
            for start, end in stretches
        )
    ]


def _alternatives(report: ConversionReport) -> str:
    return f"; alternatives {report.alternatives}" if report.alternatives else ""


def _guarded(
    view: View, split: str, report: ConversionReport, counts: GuardCounts, left: Counter[str]
) -> str:
    if view.is_held_out(split):
        return "held out"
    if split != "train":
        return "–"
    n_dropped = sum(counts.dropped.values())
    if not n_dropped and not counts.masked_documents:
        return "all"
    said = f"{report.documents - n_dropped} documents, {counts.masked_documents} of them masked "
    return f"{said}in part: {_counted(left)}"


def _counted(mentions: Mapping[str, int]) -> str:
    return ", ".join(f"{type_} {n}" for type_, n in sorted(mentions.items())) or "none"


def _shows_examples(corpus: Corpus, view_name: str) -> bool:
    """Whether a view has types that no view before it has."""
    seen: set[str] = set()
    for name, view in corpus.views.items():
        types = {*view.types, *view.partial}
        if name == view_name:
            return not types <= seen
        seen |= types
    return False


class _Sample:
    """Ten mentions per type, drawn by hash: the same from the same files, in any order."""

    def __init__(self, corpus: str) -> None:
        self.corpus = corpus
        self._drawn: dict[str, dict[str, tuple[bytes, str]]] = {}

    def add(self, record: Record) -> None:
        for mention in record.mentions:
            surface = record.text[mention.fragments[0][0] : mention.fragments[-1][1]]
            key = f"{self.corpus} {record.id} {mention.type} {mention.fragments}"
            rank = hashlib.blake2b(key.encode("utf8", "replace"), digest_size=8).digest()
            drawn = self._drawn.setdefault(mention.type, {})
            # One of each surface, so that ten mentions are ten different ones where there are.
            if rank < drawn.get(surface.lower(), (b"\xff" * 9,))[0]:
                drawn[surface.lower()] = rank, _in_context(record, mention)
            if len(drawn) > 20 * N_EXAMPLES:
                best = nsmallest(N_EXAMPLES, drawn.items(), key=lambda item: item[1][0])
                self._drawn[mention.type] = dict(best)

    def lines(self, types: Iterable[str]) -> list[str]:
        lines = []
        for type_ in types:
            drawn = nsmallest(N_EXAMPLES, self._drawn.get(type_, {}).values())
            lines += [f"{type_}:", "", *(f"- {text}" for _, text in drawn), ""]
        return lines


def _in_context(record: Record, mention: Mention) -> str:
    start, end = mention.fragments[0][0], mention.fragments[-1][1]
    before, after = record.text[max(0, start - _AROUND) : start], record.text[end : end + _AROUND]
    if start > _AROUND:
        before = "…" + before.partition(" ")[2]
    if end + _AROUND < len(record.text):
        after = after.rpartition(" ")[0] + "…"
    return f"{_escaped(before)}**{_escaped(record.text[start:end])}**{_escaped(after)}".strip()


def _escaped(text: str) -> str:
    """Text as Markdown shows it; brackets as entities, so that none is taken for a link."""
    return re.sub(r"\s+", " ", text).translate(_ESCAPES)


_ESCAPES = {
    **{ord(mark): f"\\{mark}" for mark in "\\`*_|"},
    **{ord(mark): f"&#{ord(mark)};" for mark in "&<>[]"},
}


_END = "<!-- end of what was counted -->"


def _begin(corpus: str) -> str:
    return f"<!-- counted: {corpus} -->"


def _measured_in(sheet: str) -> dict[str, str]:
    pattern = r"<!-- counted: (.+?) -->\n(.*?)" + re.escape(_END)
    return dict(re.findall(pattern, sheet, flags=re.DOTALL))


def _overview(corpora: Iterable[Corpus]) -> str:
    lines = [
        "| corpus | complete | partial | protected | licence |",
        "| --- | --- | --- | --- | --- |",
    ]
    for corpus in corpora:
        complete = sorted({type_ for view in corpus.views.values() for type_ in view.types})
        partial = sorted({type_ for view in corpus.views.values() for type_ in view.partial})
        anchor = re.sub(r"[^\w-]", "", corpus.name.lower())
        lines.append(
            f"| [{corpus.name}](#{anchor}) | {', '.join(complete) or '–'} "
            f"| {', '.join(partial) or '–'} | {'yes' if corpus.protected else 'no'} "
            f"| {corpus.licence} |"
        )
    return "\n".join(lines) + "\n"


def _described(corpus: Corpus) -> str:
    lines = [
        f"## {corpus.name}",
        "",
        f"{corpus.about[0].upper()}{corpus.about[1:]}.",
        "",
        f"- source: {corpus.source}",
        f"- licence: {corpus.licence}",
        f"- cite: {corpus.citation or '–'}",
    ]
    for name, view in corpus.views.items():
        lines += _described_view(name, view, is_protected=corpus.protected)
    return "\n".join([*lines, ""])


def _described_view(name: str, view: View, *, is_protected: bool) -> list[str]:
    about = f", {view.about}" if view.about else ""
    protects = ", ".join(split for split in view.protects if split in view.files)
    if protects and not is_protected:
        protects = f"nothing, unless asked (`--protect`): {protects}"
    lines = [
        f"- view `{name}`{about}",
        f"  - format `{view.format}`; files {', '.join(f'`{place}`' for place in view.places())}",
        f"  - protects: {protects or 'nothing'}",
    ]
    for type_ in (*view.types, *view.partial):
        how = "complete" if type_ in view.types else "partial"
        named = f"; in the instruction `{view.names[type_]}`" if type_ in view.names else ""
        lines.append(f"  - {type_} ({how}{named}): {view.guidelines[type_]}")
    return lines
