"""The pipeline that annotates shards: loaded once per worker, one thread, the same anywhere."""

from __future__ import annotations

import hashlib
import platform
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spacy_vaner import __version__, shipped
from spacy_vaner.annotation.document import Annotated, Annotation, Document, Rejection
from spacy_vaner.annotation.formats import get_output, spacy_docs
from spacy_vaner.annotation.inputs import Limits, Shard
from spacy_vaner.annotation.store import Receipt, Store
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.gold import FACTORY, CorpusName, vaner_components
from spacy_vaner.predictions import LABEL_MAP_KEY, PREDICTIONS_KEY

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

N_DIGITS = 4
"""Of scores. In fp32 a probability moves by less than 1e-5 between batches."""
_NEEDS_MEMORY = {"parser", "ner", "tok2vec"}
"""Components for which spaCy's limit on the length of a text is meant."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a run; what decides about the results is in `to_dict`, and is kept with them.

    model: a folder or the name of an installed pipeline; None = the tagger of the package.
    model_name: name, version and fingerprint, as `model_name` gives it: written with every span.
    types, corpus: asked instead of what the pipeline is set to; None and "" = as it is set.
    to: the format of results.
    gpu: number of the GPU; -1 = CPU.
    """

    model: str | None
    model_name: str
    to: str
    types: tuple[str, ...] | None = None
    corpus: CorpusName = None
    limits: Limits = Limits()
    gpu: int = -1

    def to_dict(self) -> dict[str, Any]:
        """Plain values. The versions are among them: others may round differently."""
        return {
            "model": self.model_name,
            "types": None if self.types is None else list(self.types),
            "corpus": dict(self.corpus) if isinstance(self.corpus, Mapping) else self.corpus,
            "to": self.to,
            "shard_documents": self.limits.documents,
            "shard_characters": self.limits.characters,
            "document_characters": self.limits.document_characters,
            "device": "cpu" if self.gpu < 0 else "gpu",
            "machine": platform.machine(),
            "spacy_vaner": __version__,
            "spacy": version("spacy"),
            "torch": version("torch"),
            # Where it is installed it may run the layers, in 8 bits.
            "onnxruntime": _version_of("onnxruntime"),
        }


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def model_name(model: str | None) -> str:
    """Name and version of a pipeline, and a hash of its files: "en_vaner-1.0/0a1b2c3d4e5f".

    model: None = the tagger of the package, by its name and fingerprint.
    RAISES VanerError: VE709, there is no such pipeline; VE719, the package carries no tagger;
        VE191, VE192, it carries a damaged one.
    """
    if model is None:
        return _shipped_name()
    from spacy.util import get_package_path, is_package

    folder = Path(model)
    if not folder.is_dir() and is_package(model):
        folder = get_package_path(model)
    paths = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    paths = [path for path in paths if "__pycache__" not in path.parts]
    meta = next((path for path in paths if path.name == "meta.json"), None)
    if meta is None:
        raise VanerError(Messages.VE709.format(model=model, reason="it has no meta.json"))
    content = hashlib.sha256()
    for path in paths:
        content.update(path.relative_to(folder).as_posix().encode("utf8") + b"\0")
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                content.update(chunk)
    import srsly

    said = srsly.read_json(meta)
    name = f"{said.get('lang', '')}_{said.get('name', '')}-{said.get('version', '')}"
    return f"{name}/{content.hexdigest()[:12]}"


def _shipped_name() -> str:
    if not (shipped.FOLDER / shipped.DEFAULT_NAME).is_dir():
        raise VanerError(Messages.VE719)
    manifest = shipped.read_manifest(shipped.find_shipped(shipped.DEFAULT_NAME))
    return f"{manifest['name']}/{manifest['fingerprint'][:12]}"


def load_pipeline(settings: Settings) -> Language:
    """Load the pipeline of a run, with its weights.

    RAISES VanerError: VE709, it cannot be loaded; VE710, types or a corpus are asked of a pipeline
        without vaner_ner; VE711, it predicts no entities; VE712, there is no such GPU; VE720,
        this machine carries another tagger; VE017, VE193, the weights are missing or damaged.
    """
    from thinc.api import require_gpu

    if settings.gpu >= 0:
        try:
            require_gpu(settings.gpu)
        except ValueError as error:
            raise VanerError(Messages.VE712.format(gpu=settings.gpu, reason=error)) from error
    nlp = _load(settings)
    ours = vaner_components(nlp)
    if not ours and (settings.types is not None or settings.corpus is not None):
        raise VanerError(Messages.VE710.format(components=", ".join(nlp.pipe_names)))
    if not ours and not any("doc.ents" in nlp.get_pipe_meta(n).assigns for n in nlp.pipe_names):
        raise VanerError(Messages.VE711.format(components=", ".join(nlp.pipe_names) or "none"))
    if not _NEEDS_MEMORY.intersection(nlp.get_pipe_meta(n).factory for n in nlp.pipe_names):
        nlp.max_length = max(nlp.max_length, settings.limits.document_characters + 1)
    for component in ours.values():
        # Entities that a document comes with stay.
        component.overwrite_ents = False
        # Weights that come with the package are loaded with the first text: be it this one.
        component(nlp.make_doc("."))
    return nlp


def _load(settings: Settings) -> Language:
    import spacy
    from spacy.util import load_model

    if settings.model is None:
        here = model_name(None)
        if here != settings.model_name:
            # A machine of a cluster with another version of the package.
            raise VanerError(Messages.VE720.format(here=here, name=settings.model_name))
        nlp = spacy.blank("en")
        nlp.add_pipe(FACTORY)
        return nlp
    try:
        return load_model(settings.model)
    except VanerError:
        raise
    except (OSError, ValueError) as error:
        raise VanerError(Messages.VE709.format(model=settings.model, reason=error)) from error


def parse_corpus(text: str) -> str | dict[str, str]:
    """A corpus name as it is given in a line: one for all types, or Type=name,Type=name.

    RAISES VanerError: VE758, neither of them.
    """
    if "=" not in text:
        return text
    table = {}
    for pair in text.split(","):
        type_, equals, name = (part.strip() for part in pair.partition("="))
        if not (type_ and equals and name):
            raise VanerError(Messages.VE758.format(corpus=text))
        table[type_] = name
    return table


class Annotator:
    """Annotates shards and writes them; a worker of every engine holds one."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """RAISES VanerError: as `load_pipeline`."""
        import torch

        torch.set_num_threads(1)
        self.settings = settings
        self.output = get_output(settings.to)
        self.store = Store(folder, settings.to_dict(), suffix=self.output.suffix)
        self.nlp = load_pipeline(settings)
        asked: dict[str, Any] = {}
        if settings.types is not None:
            asked["types"] = list(settings.types)
        if settings.corpus is not None:
            asked["corpus"] = settings.corpus
        self.component_cfg = dict.fromkeys(vaner_components(self.nlp), asked) if asked else {}

    def __call__(self, shard: Shard) -> Receipt:
        """Annotate a shard and put the result and its receipt in place.

        RAISES VanerError: VE707, they cannot be written.
        """
        # What a shard brings into the vocabulary goes with it: memory stays flat.
        with self.nlp.memory_zone():
            annotated: list[Annotated] = []
            rejections = [*shard.rejections]
            n_across, n_words = 0, 0
            found_types: Counter[str] = Counter()
            for document, doc in self._docs(shard.documents):
                if isinstance(doc, Exception):
                    reason = f"the pipeline failed ({type(doc).__name__}: {doc})"
                    rejections.append(
                        Rejection(document.file, document.position, reason, document.id)
                    )
                    continue
                found, across = find(document, doc, self.settings.model_name)
                annotated.append(Annotated(document, found, doc))
                n_across += across
                n_words += len(doc)
                found_types.update(one.type for one in found)
            receipt = Receipt.of(
                shard,
                rejections,
                documents=len(annotated),
                words=n_words,
                characters=sum(len(one.document.text) for one in annotated),
                found=dict(sorted(found_types.items())),
                across_passages=n_across,
            )
            write = (lambda path: self.output.write(annotated, path)) if annotated else None
            self.store.put(receipt, write)
        return receipt

    def _docs(self, documents: Sequence[Document]) -> Iterator[tuple[Document, Doc | Exception]]:
        """The documents with what the pipeline makes of them."""

        def make(document: Document) -> Doc:
            doc = spacy_docs.to_doc(document, self.nlp.vocab)
            return self.nlp.make_doc(document.text) if doc is None else doc

        docs = run_pipeline(self.nlp, documents, make, component_cfg=self.component_cfg)
        yield from zip(documents, docs, strict=True)


Given = TypeVar("Given")


def run_pipeline(
    nlp: Language,
    given: Sequence[Given],
    make: Callable[[Given], Doc],
    *,
    component_cfg: dict[str, dict[str, Any]] | None = None,
) -> list[Doc | Exception]:
    """Put Docs through the pipeline; if it fails on them together, one by one.

    make: makes the Doc of one of the given; called again where the pipeline failed.
    RETURNS: for each the Doc, or what the pipeline raised.
    """

    def run(some: Sequence[Given]) -> list[Doc]:
        return list(nlp.pipe((make(one) for one in some), component_cfg=component_cfg or {}))

    def alone(one: Given) -> Doc | Exception:
        try:
            return run([one])[0]
        except Exception as error:
            return error

    try:
        return [*run(given)]
    except Exception:  # any component may raise anything
        return [alone(one) for one in given]


def find(document: Document, doc: Doc, model: str) -> tuple[tuple[Annotation, ...], int]:
    """What the pipeline found in a document and the document did not have already.

    Scores are rounded, in the Doc too. Without a vaner_ner its entities count, without scores.
    RETURNS: annotations, and the number of spans that ran over the end of a passage and were left
        out.
    """
    labels = doc.user_data.get(LABEL_MAP_KEY, {})
    spans: list[tuple[str, int, int, float | None]] = []
    if PREDICTIONS_KEY in doc.user_data:
        rows = [[t, s, e, round(p, N_DIGITS)] for t, s, e, p in doc.user_data[PREDICTIONS_KEY]]
        doc.user_data[PREDICTIONS_KEY] = rows
        for group in doc.spans.values():
            if "scores" in group.attrs:
                group.attrs["scores"] = group.attrs["scores"].round(N_DIGITS)
        spans = [(labels.get(t, t), s, e, p) for t, s, e, p in rows]
    else:
        spans = [(ent.label_, ent.start_char, ent.end_char, None) for ent in doc.ents]
    known = {(one.type, one.fragments) for one in document.annotations if one.model == model}
    if PREDICTIONS_KEY not in doc.user_data:
        known |= {(one.type, one.fragments) for one in document.annotations}
    ends = sorted({passage.end for passage in document.passages})
    found, n_across = [], 0
    for type_, start, end, score in spans:
        one = Annotation(type_, ((start, end),), score=score, model=model)
        if (type_, one.fragments) in known:
            continue
        border = bisect_right(ends, start)
        if border < len(ends) and ends[border] < end:
            n_across += 1
        else:
            found.append(one)
    return tuple(found), n_across
