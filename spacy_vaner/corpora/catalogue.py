"""The corpora that are known by name: catalogue.json.

A row of the catalogue is a corpus with its views. A view names a format, its options and a file (or
folder) per split below the corpora folder, and may replace `types`, `partial`, `type_map`, `names`
and `guidelines`. A further corpus is a row there and nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from spacy_vaner.corpora.convert import Conversion
from spacy_vaner.corpora.guard import Kind
from spacy_vaner.errors import Messages, VanerError


@dataclass(frozen=True)
class View:
    """One form of a corpus; the fields are the keys of catalogue.json.

    guidelines: type -> what its annotators marked, in a sentence.
    ids, without_ids: split -> list of the documents that it takes or leaves, where several splits
        share a file: a file below the corpora folder, or "@" and one that comes with the package.
    pmids: file below the corpora folder that gives a PMID per identifier.
    ids_are_pmids: None = as the format has it.
    protects: split -> what the leakage guard takes it for, where it protects the corpus: "test"
        (protects whole documents) or "dev" (protects sentences).
    """

    format: str
    files: Mapping[str, str]
    types: tuple[str, ...]
    partial: tuple[str, ...] = ()
    type_map: Mapping[str, str | None] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    guidelines: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    about: str = ""
    ids: Mapping[str, str] = field(default_factory=dict)
    without_ids: Mapping[str, str] = field(default_factory=dict)
    pmids: str | None = None
    ids_are_pmids: bool | None = None
    protects: Mapping[str, Kind] = field(default_factory=lambda: {"test": "test", "dev": "dev"})

    def places(self) -> list[str]:
        """Every file and folder below the corpora folder that the view needs, once, by split."""
        lists = (*self.ids.values(), *self.without_ids.values(), self.pmids)
        below = [place for place in lists if place and not place.startswith("@")]
        return list(dict.fromkeys([*self.files.values(), *below]))

    def is_held_out(self, split: str) -> bool:
        """Whether a split by this name must not be used as such: all of CRAFT is a test."""
        return (
            split == "train"
            and split in self.protects
            or (split == "dev" and self.protects.get(split) == "test")
        )


@dataclass(frozen=True)
class Corpus:
    """A row of the catalogue.

    protected: figures on it are reported, so that the leakage guard keeps its test and dev splits
        out of what is trained on, unless told otherwise.
    """

    name: str
    about: str
    source: str
    licence: str
    citation: str | None
    protected: bool
    views: Mapping[str, View]

    def places(self) -> list[str]:
        """Every file and folder below the corpora folder that its views need, once."""
        return list(dict.fromkeys(p for view in self.views.values() for p in view.places()))


@cache
def catalogue() -> Mapping[str, Corpus]:
    """The corpora by name, in the order of catalogue.json."""
    text = files("spacy_vaner.corpora").joinpath("catalogue.json").read_text(encoding="utf8")
    return {name: _corpus(name, row) for name, row in json.loads(text).items()}


def get_corpus(name: str) -> Corpus:
    """A row of the catalogue.

    RAISES VanerError: VE211, an unknown name.
    """
    if name not in catalogue():
        known = ", ".join(catalogue())
        raise VanerError(Messages.VE211.format(corpus=name, known=known))
    return catalogue()[name]


def catalogue_conversion(
    corpus: str, view: str, split: str, *, corpora_dir: Path, tokenizer: str = "spacy"
) -> Conversion:
    """What to convert for one split of a corpus in the catalogue.

    RAISES VanerError: VE211 to VE213, an unknown name; VE214, a file that is not there.
    """
    views = get_corpus(corpus).views
    if view not in views:
        known = ", ".join(views)
        raise VanerError(Messages.VE212.format(corpus=corpus, view=view, known=known))
    row = views[view]
    if split not in row.files:
        known = ", ".join(row.files)
        raise VanerError(Messages.VE213.format(corpus=corpus, view=view, split=split, known=known))

    def there(place: str | None) -> Path | None:
        if place is None:
            return None
        if place.startswith("@"):
            return Path(str(files("spacy_vaner.corpora").joinpath(place[1:])))
        path = corpora_dir / place
        if not path.exists():
            source = get_corpus(corpus).source
            raise VanerError(
                Messages.VE214.format(corpus=corpus, folder=corpora_dir, path=path, source=source)
            )
        return path

    path = there(row.files[split])
    assert path is not None
    return Conversion(
        files=(path,),
        format=row.format,
        options=row.options,
        tokenizer=tokenizer,
        corpus=corpus,
        types=row.types,
        partial=row.partial,
        type_map=row.type_map,
        names=row.names,
        ids_are_pmids=row.ids_are_pmids,
        ids=there(row.ids.get(split)),
        without_ids=there(row.without_ids.get(split)),
        pmids=there(row.pmids),
    )


def _corpus(name: str, row: dict[str, Any]) -> Corpus:
    shared: dict[str, Any] = {
        key: row[key]
        for key in ("types", "partial", "type_map", "names", "guidelines")
        if key in row
    }
    views = {view: _view({**shared, **form}) for view, form in row["views"].items()}
    return Corpus(
        name=name,
        about=row["about"],
        source=row["source"],
        licence=row["licence"],
        citation=row.get("citation"),
        protected=row["protected"],
        views=views,
    )


def _view(row: dict[str, Any]) -> View:
    lists = {key: tuple(value) for key, value in row.items() if isinstance(value, list)}
    return View(**{**row, **lists})
