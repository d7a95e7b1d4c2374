"""The factory `vaner_ner` and its component: the whole surface towards spaCy."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import srsly
from spacy import util
from spacy.errors import Errors
from spacy.language import Language
from spacy.pipeline.trainable_pipe import TrainablePipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Config, CupyOps, Model, Optimizer, get_current_ops

from spacy_vaner import model as tagger_model
from spacy_vaner.decoding import above_threshold, decode
from spacy_vaner.errors import Messages, VanerError, VanerWarning
from spacy_vaner.files import write_whole
from spacy_vaner.gold import CorpusName, Gold, get_ask, get_gold, gold_from_ents, name_for
from spacy_vaner.model import Question
from spacy_vaner.predictions import Prediction, write_predictions
from spacy_vaner.scorer import score_ner
from spacy_vaner.settings import (
    Setting,
    check_batch_subwords,
    check_threshold,
    check_types,
    one_of,
    read_settings,
    restore_settings,
)
from spacy_vaner.targets import GoldTags, Target, gold_tags, loss_and_gradient, make_targets
from spacy_vaner.types import ScoredSpan

if TYPE_CHECKING:
    from spacy_vaner.backbone.tagger import Tagger

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

_check_precision = one_of("auto", "fp32", "bf16")

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
        types=[part.strip() for part in types.split(",")] if isinstance(types, str) else types,
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


_SETTINGS_FILE = "cfg.json"


class VanerNER(TrainablePipe):  # type: ignore[misc]  # spaCy's class is Cython, without types
    """Named entity recognition with a bidirectional LLaMA that is asked for types by name.

    Every setting is an attribute of the same name and can be changed at any time.
    """

    threshold = Setting(check_threshold)
    batch_subwords = Setting(check_batch_subwords)
    asking = Setting(one_of("per_type"))
    engine = Setting(one_of("torch"))

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
        self._precision = _check_precision("precision", precision)
        self._device = device
        # What the config said, to tell a changed setting from an override when loading.
        self._configured = read_settings(self)

    @property
    def types(self) -> tuple[str, ...]:
        """The types that are asked, in order of priority."""
        return self._types

    @types.setter
    def types(self, types: Sequence[str]) -> None:
        self._types = check_types(types)
        for label in self.labels:
            # Labels outlive the texts of a memory zone.
            self.vocab.strings.add(label, allow_transient=False)  # type: ignore[call-arg]

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
        self._precision = _check_precision("precision", precision)
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
        tagger = tagger_model.get_tagger(self.model)
        if tagger is not None:
            device, tagger.precision = self._placement()
            tagger.to(device)

    def _placement(self) -> tuple[str, str]:
        """Device and precision in effect. "auto" is CUDA where spaCy has been told to use it."""
        from spacy_vaner.backbone.device import choose_device, choose_precision

        follows_spacy = self._device == "auto"
        on_gpu = isinstance(get_current_ops(), CupyOps)
        setting = ("cuda" if on_gpu else "cpu") if follows_spacy else self._device
        device = choose_device(setting)
        return str(device), choose_precision(self._precision, device)

    def merge_adapter(self) -> None:
        """Add the adapter to the backbone's weights: faster prediction, for the memory of a copy.

        Predictions stay equal up to rounding. Training undoes it; saving stores the adapter.
        """
        self._require_tagger().merge_adapter()

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
    ) -> list[Prediction]:
        """RETURNS: per document what was asked and every span above the threshold."""
        self._require_tagger()
        docs = list(docs)
        asked_types = None if types is None else check_types(types)
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
            predictions.append(Prediction(tuple(question.type for question in asked), kept))
        return predictions

    def _require_tagger(self) -> "Tagger":
        tagger = tagger_model.get_tagger(self.model)
        if tagger is None:
            raise VanerError(f"{Errors.E109.format(name=self.name)} {Messages.VE017}")
        return tagger

    def _questions(
        self, doc: Doc, types: Sequence[str] | None, corpus: CorpusName | _AsSet
    ) -> list[Question]:
        """The call's setting wins, then what the document asks for, then the component."""
        ask = get_ask(doc)
        if types is None:
            types = ask.get("types", self.types)
        if isinstance(corpus, _AsSet):
            corpus = ask.get("corpus", self.corpus)
        return [Question(name, name_for(corpus, name)) for name in dict.fromkeys(types)]

    def set_annotations(self, docs: Iterable[Doc], predictions: Iterable[Prediction]) -> None:
        """Write predictions to documents, as docs/formats.md, section 2, says."""
        for doc, prediction in zip(docs, predictions, strict=True):
            write_predictions(
                doc,
                prediction,
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

        validate_get_examples(get_examples, "VanerNER.initialize")
        if labels is not None:
            self.types = labels
        self._check_annotation(get_examples())
        device, precision = self._placement()
        tagger_model.initialize_tagger(
            self.model,
            device=device,
            precision=precision,
            # spaCy seeds torch from [training] seed before it initialises a pipeline.
            seed=int(torch.randint(2**31 - 1, ())),
            texts=(example.reference.text for example in get_examples()),
        )

    def _check_annotation(self, examples: Iterable[Example]) -> None:
        """Refuse types that no example is annotated for, if examples say what they hold."""
        annotated: set[str] = set()
        labels: set[str] = set()
        for example in examples:
            gold = get_gold(example.reference)
            if gold is None:
                labels.update(ent.label_ for ent in example.reference.ents)
            else:
                annotated.update(gold.types, gold.partial)
        if not annotated and not labels:
            return
        if not labels.isdisjoint(self.labels):
            # Plain spaCy data is annotated for whatever the component asks.
            annotated.update(self.types)
        missing = [name for name in self.types if name not in annotated]
        known = sorted(annotated | labels)
        if len(missing) == len(self.types):
            raise VanerError(Messages.VE018.format(types=missing, annotated=known))
        if missing:
            warnings.warn(
                Messages.VW018.format(types=missing, annotated=known), VanerWarning, stacklevel=2
            )
        if unknown := sorted(labels.difference(self.labels)):
            warnings.warn(Messages.VW019.format(labels=unknown), VanerWarning, stacklevel=2)

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
        return name_for(get_ask(doc).get("corpus", gold.names or self.corpus), name)

    # Saving

    def _files(self) -> dict[str, bytes]:
        """Everything that is saved: file name to content."""
        model_files = tagger_model.model_files(self.model)
        settings = {
            "configured": self._configured,
            "now": read_settings(self),
            "files": sorted(model_files),
        }
        return {_SETTINGS_FILE: srsly.json_dumps(settings, indent=2).encode("utf8"), **model_files}

    def _load_files(self, files: Mapping[str, bytes]) -> None:
        try:
            settings = srsly.json_loads(files[_SETTINGS_FILE].decode("utf8"))
            configured, now = dict(settings["configured"]), dict(settings["now"])
            names = list(settings["files"])
        except (ValueError, KeyError, TypeError) as error:
            raise VanerError(
                Messages.VE023.format(file=_SETTINGS_FILE, error=repr(error))
            ) from error
        restore_settings(self, configured=self._configured, saved_configured=configured, saved=now)
        if names:
            device, precision = self._placement()
            tagger_model.load_model_files(
                self.model,
                {name: files[name] for name in names if name in files},
                device=device,
                precision=precision,
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
            write_whole(path / name, content)
        if "vocab" not in exclude:
            self.vocab.to_disk(path / "vocab", exclude=exclude)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "VanerNER":
        """Load what to_disk wrote.

        RAISES VanerError: VE020, the folder does not hold a saved component.
        """
        path = Path(path)
        if not (path / _SETTINGS_FILE).is_file():
            raise VanerError(Messages.VE020.format(path=path))
        self._load_files(
            {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
        )
        if "vocab" not in exclude and (path / "vocab").is_dir():
            self.vocab.from_disk(path / "vocab", exclude=exclude)
        return self
