"""The factory `vaner_ner`, its component and its scorer: the whole surface towards spaCy."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import srsly
from spacy import util
from spacy.errors import Errors
from spacy.language import Language
from spacy.pipeline.trainable_pipe import TrainablePipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Config, Model, Optimizer

from spacy_vaner import model as tagger_model
from spacy_vaner.decoding import above_threshold, decode
from spacy_vaner.errors import Messages, VanerError, VanerWarning
from spacy_vaner.gold import KEY, CorpusName, Gold, get_gold, gold_from_ents, name_for
from spacy_vaner.model import Question
from spacy_vaner.predictions import write_predictions
from spacy_vaner.scorer import score_ner
from spacy_vaner.targets import GoldTags, Target, gold_tags, loss_and_gradient, make_targets
from spacy_vaner.types import ScoredSpan

DEFAULT_CONFIG = """
[vaner_ner]
types = ["Disease", "Chemical", "Gene", "Species"]
corpus = null
spans_key = "vaner"
annotate_ents = true
overwrite_ents = true
threshold = 0.0
batch_subwords = 4096
asking = "per_type"
precision = "auto"
device = "auto"
engine = "torch"
label_map = {}
retokenize = false

[vaner_ner.model]
@architectures = "spacy-vaner.VanerTagger.v1"
labelled_subwords = "first"
max_subwords = 384
dropout = 0.1
adapter = null

[vaner_ner.model.window]
@span_getters = "spacy-vaner.packed_sentences.v1"
n_words = 160
overlap = 32
pack = true

[vaner_ner.model.instruction]
@misc = "spacy-vaner.paper_instruction.v1"

[vaner_ner.model.backbone]
@misc = "spacy-vaner.small_llama.v1"
hidden_size = 256
n_layers = 6
n_heads = 4
intermediate_size = 688
max_positions = 1024
vocab_size = 8000
tokenizer_path = null
attn_implementation = "sdpa"

[vaner_ner.scorer]
@scorers = "spacy-vaner.ner_scorer.v1"
"""

DISPLACY_COLORS = {
    "DISEASE": "#f4b6a6",
    "CHEMICAL": "#a8d8b9",
    "GENE": "#a9c6ee",
    "SPECIES": "#f2d88f",
    "CELLLINE": "#d9c3ea",
    "CELLTYPE": "#c9b8d8",
    "VARIANT": "#f0c4dc",
    "ANATOMY": "#c5d5c0",
}


class _AsSet:
    """Stands for "what the component is set to" where None is a value of its own."""


_AS_SET = _AsSet()

_default_config = Config().from_str(DEFAULT_CONFIG)


@Language.factory(
    "vaner_ner",
    assigns=["doc.ents", "doc.spans", "token.ent_iob", "token.ent_type"],
    default_config=_default_config["vaner_ner"],
    default_score_weights={
        "vaner_f": 1.0,
        "vaner_p": 0.0,
        "vaner_r": 0.0,
        "vaner_f_per_type": None,
    },
)
def make_vaner_ner(
    nlp: Language,
    name: str,
    types: list[str] | str,
    corpus: str | dict[str, str] | None,
    spans_key: str | None,
    annotate_ents: bool,
    overwrite_ents: bool,
    threshold: float | dict[str, float],
    batch_subwords: int,
    asking: Literal["per_type"],
    precision: Literal["auto", "fp32", "bf16"],
    device: str,
    engine: Literal["torch"],
    label_map: dict[str, str],
    retokenize: bool,
    model: Model[list[Any], Any],
    scorer: Callable[..., dict[str, Any]] | None,
) -> "VanerNER":
    """Make the component. The settings are described in docs/formats.md, section 4.

    types: a list, or one string with commas between, as it can be given on a command line.
    """
    return VanerNER(
        nlp.vocab,
        model,
        name,
        types=types.split(",") if isinstance(types, str) else types,
        corpus=corpus,
        spans_key=spans_key,
        annotate_ents=annotate_ents,
        overwrite_ents=overwrite_ents,
        threshold=threshold,
        batch_subwords=batch_subwords,
        asking=asking,
        precision=precision,
        device=device,
        engine=engine,
        label_map=label_map,
        retokenize=retokenize,
        scorer=scorer,
    )


_SETTINGS = "cfg.json"
# Settings that a saved component carries; the device belongs to the machine, not to the model.
_SAVED_SETTINGS = (
    "types",
    "corpus",
    "spans_key",
    "annotate_ents",
    "overwrite_ents",
    "threshold",
    "batch_subwords",
    "asking",
    "precision",
    "engine",
    "label_map",
    "retokenize",
)


class VanerNER(TrainablePipe):  # type: ignore[misc]  # spaCy's class is Cython, without types
    """Named entity recognition with a bidirectional LLaMA that is asked for types by name.

    Every setting is an attribute of the same name and can be changed at any time.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: tagger_model.TaggerModel,
        name: str = "vaner_ner",
        *,
        types: Sequence[str],
        corpus: CorpusName = None,
        spans_key: str | None = "vaner",
        annotate_ents: bool = True,
        overwrite_ents: bool = True,
        threshold: float | Mapping[str, float] = 0.0,
        batch_subwords: int = 4096,
        asking: str = "per_type",
        precision: str = "auto",
        device: str = "auto",
        engine: str = "torch",
        label_map: Mapping[str, str] | None = None,
        retokenize: bool = False,
        scorer: Callable[..., dict[str, Any]] | None = score_ner,
    ) -> None:
        if batch_subwords < 1:
            raise VanerError(Messages.VE016.format(batch_subwords=batch_subwords))
        self.vocab = vocab
        self.model = model
        self.name = name
        self.label_map = dict(label_map or {})
        self.types = types
        self.corpus = corpus
        self.spans_key = spans_key
        self.annotate_ents = annotate_ents
        self.overwrite_ents = overwrite_ents
        self.threshold = threshold
        self.batch_subwords = batch_subwords
        self.asking = asking
        self.engine = engine
        self.retokenize = retokenize
        self.scorer = scorer
        self._precision = precision
        self._device = device
        # What the config said, to tell a changed setting from an override when loading.
        self._configured = self._settings()

    @property
    def types(self) -> tuple[str, ...]:
        """The types that are asked, in order of priority."""
        return self._types

    @types.setter
    def types(self, types: Sequence[str]) -> None:
        self._types = _check_types(types)
        for label in self.labels:
            # Labels outlive the texts of a memory zone.
            self.vocab.strings.add(label)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the spans: the types, renamed by label_map."""
        return tuple(dict.fromkeys(self.label_map.get(name, name) for name in self.types))

    @property
    def label_data(self) -> tuple[str, ...]:
        """What `spacy init labels` stores: the types."""
        return self.types

    def add_label(self, label: str) -> int:
        """Ask for one more type. RETURNS: 1, or 0 if it is asked already."""
        if label in self.types or label in self.labels:
            return 0
        self.types = (*self.types, label)
        return 1

    @property
    def precision(self) -> str:
        """fp32, bf16, or auto."""
        return self._precision

    @precision.setter
    def precision(self, precision: str) -> None:
        self._precision = precision
        self._place_tagger()

    @property
    def device(self) -> str:
        """auto, cpu, cuda, or cuda:N."""
        return self._device

    @device.setter
    def device(self, device: str) -> None:
        self._device = device
        self._place_tagger()

    def _place_tagger(self) -> None:
        from spacy_vaner.backbone.device import choose_device, choose_precision

        tagger = tagger_model.get_tagger(self.model)
        if tagger is not None:
            device = choose_device(self._device)
            tagger.to(device)
            tagger.precision = choose_precision(self._precision, device)

    # Prediction

    def __call__(
        self,
        doc: Doc,
        *,
        batch_size: int = 1,
        types: Sequence[str] | None = None,
        corpus: CorpusName | _AsSet = _AS_SET,
    ) -> Doc:
        """Find the entities of one document.

        batch_size: not used; nlp.pipe writes it into the caller's component_cfg, which may then be
            given to nlp as well.
        types, corpus: asked in this call instead of what the component is set to.
        """
        error_handler = self.get_error_handler()
        try:
            self.set_annotations([doc], self.predict([doc], types=types, corpus=corpus))
        except Exception as error:
            error_handler(self.name, self, [doc], error)
        return doc

    def pipe(
        self,
        stream: Iterable[Doc],
        *,
        batch_size: int = 128,
        types: Sequence[str] | None = None,
        corpus: CorpusName | _AsSet = _AS_SET,
    ) -> Iterator[Doc]:
        """Find the entities of a stream of documents.

        batch_size: documents whose windows are sorted by length together.
        types, corpus: asked in this call instead of what the component is set to.
        """
        error_handler = self.get_error_handler()
        iterator = iter(stream)
        while docs := list(islice(iterator, batch_size)):
            try:
                self.set_annotations(docs, self.predict(docs, types=types, corpus=corpus))
            except Exception as error:
                error_handler(self.name, self, docs, error)
            else:
                yield from docs

    def predict(
        self,
        docs: Iterable[Doc],
        *,
        types: Sequence[str] | None = None,
        corpus: CorpusName | _AsSet = _AS_SET,
    ) -> list[list[ScoredSpan]]:
        """RETURNS: per document every span above the threshold, by (start, end, type)."""
        self._require_tagger()
        docs = list(docs)
        asked_types = None if types is None else _check_types(types)
        questions = [self._questions(doc, asked_types, corpus) for doc in docs]
        answers = tagger_model.predict_probabilities(
            self.model, docs, questions, batch_subwords=self.batch_subwords
        )
        decoded = iter(decode([p for answer in answers for p in answer.probabilities]))
        predictions = []
        for answer, asked in zip(answers, questions, strict=True):
            spans = [
                ScoredSpan(
                    question.type,
                    int(answer.units[span.start, 0]),
                    int(answer.units[span.end - 1, 1]),
                    span.probability,
                )
                for question in asked
                for span in next(decoded)
            ]
            kept = above_threshold(spans, self.threshold)
            predictions.append(sorted(kept, key=lambda span: (span.start, span.end, span.type)))
        return predictions

    def _require_tagger(self) -> None:
        if tagger_model.get_tagger(self.model) is None:
            raise VanerError(f"{Errors.E109.format(name=self.name)} {Messages.VE017}")

    def _questions(
        self, doc: Doc, types: Sequence[str] | None, corpus: CorpusName | _AsSet
    ) -> list[Question]:
        """The call's setting wins, then what the document asks for, then the component."""
        ask = (doc.user_data.get(KEY) or {}).get("ask")
        if types is None:
            types = self.types if ask is None else ask["types"]
        if isinstance(corpus, _AsSet):
            corpus = self.corpus if ask is None else ask["corpus"]
        return [Question(name, name_for(corpus, name)) for name in dict.fromkeys(types)]

    def set_annotations(
        self, docs: Iterable[Doc], predictions: Iterable[Sequence[ScoredSpan]]
    ) -> None:
        """Write predictions to documents, as docs/formats.md, section 2, says."""
        for doc, spans in zip(docs, predictions, strict=True):
            write_predictions(
                doc,
                spans,
                spans_key=self.spans_key,
                annotate_ents=self.annotate_ents,
                overwrite_ents=self.overwrite_ents,
                label_map=self.label_map,
                priority=self.labels,
                retokenize=self.retokenize,
            )

    # Training

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Make new weights, also in a pipeline that has been trained before.

        A pretrained backbone is loaded, its adapter and head are new; a small LLaMA is new
        altogether, and so is its tokenizer if model.backbone.tokenizer_path is null: it is then
        trained on the texts of the examples.

        labels: the types to ask, if they are not to be those of the settings.
        RAISES VanerError: VE018, the examples are annotated for none of the types.
        """
        import torch

        from spacy_vaner.backbone.device import choose_device, choose_precision

        validate_get_examples(get_examples, "VanerNER.initialize")
        if labels is not None:
            self.types = labels
        self._check_annotation(get_examples())
        device = choose_device(self._device)
        tagger_model.initialize_tagger(
            self.model,
            device=str(device),
            precision=choose_precision(self._precision, device),
            # spaCy seeds torch from [training] seed before it initialises a pipeline.
            seed=int(torch.randint(2**31 - 1, ())),
            texts=(example.reference.text for example in get_examples()),
        )

    def _check_annotation(self, examples: Iterable[Example]) -> None:
        """Refuse types that no example is annotated for, if examples say what they hold."""
        annotated: set[str] = set()
        for example in examples:
            gold = get_gold(example.reference)
            if gold is None:
                # Plain spaCy data is annotated for whatever the component asks.
                return
            annotated.update(gold.types, gold.partial)
        missing = [name for name in self.types if name not in annotated]
        if len(missing) == len(self.types):
            raise VanerError(
                Messages.VE018.format(types=missing, annotated=sorted(annotated) or "none")
            )
        if missing:
            warnings.warn(
                Messages.VW018.format(types=missing, annotated=sorted(annotated)),
                VanerWarning,
                stacklevel=2,
            )

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from a batch: one pass per window and annotated type.

        A document is asked only for types that it is annotated for. The loss is the mean
        cross-entropy of the labelled subwords.

        drop: not used; the model's own `dropout` and the adapter's are.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, "VanerNER.update")
        self._require_tagger()
        rows: list[tagger_model.Row] = []
        targets: list[Target] = []
        for example in examples:
            for row, target in self._training_rows(example):
                if len(target.tags):
                    rows.append(row)
                    targets.append(target)
        n_labels = sum(len(target.tags) for target in targets)
        for batch in tagger_model.plan_batches(
            [len(row.input_ids) for row in rows], self.batch_subwords
        ):
            batch_rows = [rows[index] for index in batch]
            logits, backprop = self.model.begin_update(batch_rows)
            loss, gradient = loss_and_gradient(
                logits, batch_rows, [targets[index] for index in batch], n_labels
            )
            backprop(gradient)
            losses[self.name] += loss
        if sgd and rows:
            self.finish_update(sgd)
        return losses

    def _training_rows(self, example: Example) -> Iterator[tuple[tagger_model.Row, Target]]:
        doc = example.predicted
        if doc.text != example.reference.text:
            raise VanerError(Messages.VE019.format(text=example.reference.text[:60]))
        gold = get_gold(example.reference) or gold_from_ents(
            example.reference, self.types, self.label_map
        )
        asked = [name for name in self.types if name in gold.types or name in gold.partial]
        if not asked:
            return
        reading = tagger_model.read_document(self.model, doc)
        for name in asked:
            tags = self._gold_tags(reading, gold, name)
            question = Question(name, self._corpus_in_training(doc, gold, name))
            yield from zip(
                tagger_model.make_rows(self.model, reading, question),
                make_targets(
                    reading, tags, labelled_subwords=self.model.attrs["labelled_subwords"]
                ),
                strict=True,
            )

    @staticmethod
    def _gold_tags(reading: tagger_model.Reading, gold: Gold, name: str) -> GoldTags:
        return gold_tags(
            reading.units,
            [mention.fragments for mention in gold.mentions if mention.type == name],
            gold.masked,
            is_complete=name in gold.types,
        )

    def _corpus_in_training(self, doc: Doc, gold: Gold, name: str) -> str | None:
        ask = (doc.user_data.get(KEY) or {}).get("ask")
        if ask is not None:
            return name_for(ask["corpus"], name)
        return name_for(gold.names or self.corpus, name)

    # Saving

    def _settings(self) -> dict[str, Any]:
        return {key: _plain(getattr(self, key)) for key in _SAVED_SETTINGS}

    def _files(self) -> dict[str, bytes]:
        """Everything that is saved: file name to content."""
        model_files = tagger_model.model_files(self.model)
        settings = {
            "configured": self._configured,
            "now": self._settings(),
            "files": sorted(model_files),
        }
        return {_SETTINGS: srsly.json_dumps(settings, indent=2).encode("utf8"), **model_files}

    def _load_files(self, files: Mapping[str, bytes]) -> None:
        from spacy_vaner.backbone.device import choose_device, choose_precision

        try:
            settings = srsly.json_loads(files[_SETTINGS].decode("utf8"))
            configured, now = dict(settings["configured"]), dict(settings["now"])
            names = list(settings["files"])
        except (ValueError, KeyError, TypeError) as error:
            raise VanerError(Messages.VE023.format(file=_SETTINGS, error=repr(error))) from error
        for key in _SAVED_SETTINGS:
            # A setting that the config gives otherwise than when saving is an override: it stays.
            if key in now and self._configured[key] == configured.get(key):
                setattr(self, key, now[key])
        if names:
            device = choose_device(self._device)
            tagger_model.load_model_files(
                self.model,
                {name: files[name] for name in names if name in files},
                device=str(device),
                precision=choose_precision(self._precision, device),
            )

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Settings and weights. exclude: "vocab"."""
        serializers: dict[str, Callable[[], Any]] = {
            "files": lambda: srsly.msgpack_dumps(self._files()),
            "vocab": lambda: self.vocab.to_bytes(exclude=exclude),
        }
        return bytes(util.to_bytes(serializers, exclude))

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> "VanerNER":
        """Load what to_bytes gave."""
        deserializers: dict[str, Callable[[bytes], Any]] = {
            "files": lambda data: self._load_files(srsly.msgpack_loads(data)),
            "vocab": lambda data: self.vocab.from_bytes(data, exclude=exclude),
        }
        util.from_bytes(bytes_data, deserializers, exclude)
        return self

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write settings and weights to a folder; docs/formats.md, section 7. exclude: "vocab"."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        for name, content in self._files().items():
            _write_whole(path / name, content)
        if "vocab" not in exclude:
            self.vocab.to_disk(path / "vocab", exclude=exclude)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "VanerNER":
        """Load what to_disk wrote.

        RAISES VanerError: VE020, the folder does not hold a saved component.
        """
        path = Path(path)
        if not (path / _SETTINGS).is_file():
            raise VanerError(Messages.VE020.format(path=path))
        self._load_files(
            {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
        )
        if "vocab" not in exclude and (path / "vocab").is_dir():
            self.vocab.from_disk(path / "vocab", exclude=exclude)
        return self


def _check_types(types: Sequence[str]) -> tuple[str, ...]:
    """RAISES VanerError: VE021, VE022."""
    if isinstance(types, str) or not types:
        raise VanerError(Messages.VE021.format(types=types))
    for name in types:
        if not isinstance(name, str) or not name.strip() or any(c in name for c in ":=\n\r"):
            raise VanerError(Messages.VE022.format(name=name))
    return tuple(dict.fromkeys(types))


def _plain(value: Any) -> Any:
    """As JSON would give it back, to compare settings."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, (list, tuple)) else value


def _write_whole(path: Path, content: bytes) -> None:
    """Write beside and rename, so that an interrupt leaves the old file or the new one."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
