"""The factory `vaner_ner` and its component: the whole surface towards spaCy."""

import json
import threading
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
from spacy_vaner.adapters import (
    adapters_of,
    describe,
    find_adapter,
    new_adapter,
    read_adapter,
    write_adapter,
)
from spacy_vaner.backbone.settings import Lora
from spacy_vaner.decoding import decode_documents
from spacy_vaner.document_names import choose_spans
from spacy_vaner.errors import Messages, VanerError, VanerWarning
from spacy_vaner.examples import check_annotation, learned_types, training_rows
from spacy_vaner.files import write_whole
from spacy_vaner.gold import CorpusName, get_ask, name_for
from spacy_vaner.predictions import Prediction, write_predictions
from spacy_vaner.reading import Question, Row, plan_rows
from spacy_vaner.scorer import score_ner
from spacy_vaner.settings import (
    Setting,
    check_adapters,
    check_batch_subwords,
    check_repeat_threshold,
    check_threshold,
    check_types,
    one_of,
    read_settings,
    restore_settings,
    warn_of_misspelled_types,
)
from spacy_vaner.shipped import default_component
from spacy_vaner.targets import Target, loss_and_gradient

if TYPE_CHECKING:
    from spacy_vaner.backbone.adapters import Adapter
    from spacy_vaner.backbone.tagger import Tagger

DEFAULT_CONFIG = """
[vaner_ner]
types = ["Disease", "Chemical", "Gene", "Species"]
corpus = null
spans_key = "vaner"
annotate_ents = true
overwrite_ents = true
threshold = null
repeat_threshold = 0.7
batch_subwords = 4096
asking = "per_type"
precision = "auto"
device = "auto"
engine = "auto"
label_map = {}
retokenize = false
adapters = []

[vaner_ner.model]
@architectures = "spacy-vaner.VanerTagger.v1"
labelled_subwords = "first"
max_subwords = 384
dropout = 0.1
question_width = 128
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

# Once the package carries a tagger, it takes the place of the small LLaMA without weights.
_default_config = Config().from_str(DEFAULT_CONFIG).merge({"vaner_ner": default_component()})
# Two threads must not load it at the same time. A lock in a component could not be pickled.
_LOADING = threading.RLock()


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
    threshold: float | dict[str, float] | None,
    repeat_threshold: float | None,
    batch_subwords: int,
    asking: Literal["per_type", "joint"],
    precision: Literal["auto", "fp32", "bf16"],
    device: str,
    engine: Literal["auto", "torch", "onnx"],
    label_map: dict[str, str],
    retokenize: bool,
    adapters: list[dict[str, str | list[str]]],
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
        types=types,
        corpus=corpus,
        spans_key=spans_key,
        annotate_ents=annotate_ents,
        overwrite_ents=overwrite_ents,
        threshold=threshold,
        repeat_threshold=repeat_threshold,
        batch_subwords=batch_subwords,
        asking=asking,
        precision=precision,
        device=device,
        engine=engine,
        label_map=label_map,
        retokenize=retokenize,
        adapters=adapters,
        scorer=scorer,
    )


_SETTINGS_FILE = "cfg.json"


class VanerNER(TrainablePipe):  # type: ignore[misc]  # spaCy's class is Cython, without types
    """Named entity recognition with a bidirectional LLaMA that is asked for types by name.

    Every setting is an attribute of the same name and can be changed at any time.
    """

    threshold = Setting(check_threshold)
    repeat_threshold = Setting(check_repeat_threshold)
    batch_subwords = Setting(check_batch_subwords)
    asking = Setting(one_of("per_type", "joint"))
    engine = Setting(one_of("auto", "torch", "onnx"))

    def __init__(
        self,
        vocab: Vocab,
        model: tagger_model.TaggerModel,
        name: str = "vaner_ner",
        *,
        types: Sequence[str] | str,
        corpus: CorpusName = None,
        spans_key: str | None = "vaner",
        annotate_ents: bool = True,
        overwrite_ents: bool = True,
        threshold: float | Mapping[str, float] | None = None,
        repeat_threshold: float | None = 0.7,
        batch_subwords: int = 4096,
        asking: str = "per_type",
        precision: str = "auto",
        device: str = "auto",
        engine: str = "auto",
        label_map: Mapping[str, str] | None = None,
        retokenize: bool = False,
        adapters: Sequence[Mapping[str, Any]] = (),
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
        self.repeat_threshold = repeat_threshold
        self.batch_subwords = batch_subwords
        self.asking = asking
        self.engine = engine
        self.retokenize = retokenize
        self.scorer = scorer
        self._precision = _check_precision("precision", precision)
        self._device = device
        # What the config said, to tell a changed setting from an override when loading.
        self._configured = read_settings(self)
        self._configured_adapters = check_adapters(adapters)
        # Types that are asked since an adapter for them came, and no longer when it goes.
        self._types_of_adapters: list[str] = []
        self._misspelled: set[str] = set()
        self._new_types: set[str] = set()

    @property
    def types(self) -> tuple[str, ...]:
        """The types that are asked, in order of priority."""
        return self._types

    @types.setter
    def types(self, types: Sequence[str] | str) -> None:
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
        types: Sequence[str] | str | None = None,
        corpus: CorpusName | _AsSet = _AS_SET,
        **unknown: object,
    ) -> Doc:
        """Find the entities of one document.

        batch_size: not used; nlp.pipe writes it into the caller's component_cfg, which may then be
            given to nlp as well.
        types, corpus: asked in this call instead of what the component is set to.
        RAISES VanerError: VE030, there is no such setting per call.
        """
        self._refuse(unknown)
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
        types: Sequence[str] | str | None = None,
        corpus: CorpusName | _AsSet = _AS_SET,
        **unknown: object,
    ) -> Iterator[Doc]:
        """Find the entities of a stream of documents.

        batch_size: documents whose windows are sorted by length together.
        types, corpus: asked in this call instead of what the component is set to.
        RAISES VanerError: VE030, there is no such setting per call.
        """
        self._refuse(unknown)
        error_handler = self.get_error_handler()
        iterator = iter(stream)
        while docs := list(islice(iterator, batch_size)):
            try:
                self.set_annotations(docs, self.predict(docs, types=types, corpus=corpus))
            except Exception as error:
                error_handler(self.name, self, docs, error)
            else:
                yield from docs

    def _refuse(self, settings: Mapping[str, object]) -> None:
        if settings:
            raise VanerError(
                Messages.VE030.format(
                    name=self.name, unknown=", ".join(settings), known="types, corpus, batch_size"
                )
            )

    def predict(
        self,
        docs: Iterable[Doc],
        *,
        types: Sequence[str] | str | None = None,
        corpus: CorpusName | _AsSet = _AS_SET,
    ) -> list[Prediction]:
        """RETURNS: per document what was asked and every span above the threshold."""
        self._require_tagger()
        docs = list(docs)
        asked_types = None if types is None else check_types(types)
        warn_of_misspelled_types(self, asked_types or (), self._misspelled)
        questions = [self._questions(doc, asked_types, corpus) for doc in docs]
        self._warn_of_new_types(question.type for asked in questions for question in asked)
        answers = tagger_model.predict_probabilities(
            self.model, docs, questions, batch_subwords=self.batch_subwords
        )
        types_asked = [tuple(question.type for question in asked) for asked in questions]
        found = decode_documents(
            types_asked,
            [answer.probabilities for answer in answers],
            [answer.units for answer in answers],
        )
        threshold = self.threshold_in_use
        return [
            Prediction(
                asked,
                choose_spans(
                    doc.text,
                    spans,
                    answer.units,
                    threshold=threshold,
                    repeat_threshold=self.repeat_threshold,
                ),
            )
            for doc, asked, answer, spans in zip(docs, types_asked, answers, found, strict=True)
        ]

    @property
    def threshold_in_use(self) -> float | dict[str, float]:
        """What spans are held to: `threshold`, or what the tagger says where that is None."""
        if self.threshold is not None:
            return self.threshold
        return self._require_tagger().thresholds or 0.0

    @property
    def known_types(self) -> tuple[str, ...] | None:
        """The types that the tagger and its adapters were trained for; None = it does not say.

        Any other text can be asked for too, as a type that is new to it.
        """
        known = self._require_tagger().known_types
        if known is None:
            return None
        return (*known, *(name for a in self.adapters for name in a.types if name not in known))

    def _warn_of_new_types(self, asked: Iterable[str]) -> None:
        """WARNS VanerWarning: VW041, once per type."""
        known = self.known_types
        if known is None:
            return
        for name in dict.fromkeys(asked):
            if name not in known and name not in self._new_types:
                self._new_types.add(name)
                warnings.warn(
                    Messages.VW041.format(types=name, known=", ".join(known)),
                    VanerWarning,
                    stacklevel=4,
                )

    def _load_pretrained(self) -> "Tagger | None":
        """The tagger; the one that comes with the package is loaded when it is first needed."""
        with _LOADING:
            tagger = tagger_model.get_tagger(self.model)
            if tagger is None:
                device, precision = self._placement()
                tagger = tagger_model.load_pretrained_tagger(
                    self.model, device=device, precision=precision
                )
                if tagger is not None:
                    self._load_configured_adapters([])
        return tagger

    def _require_tagger(self) -> "Tagger":
        tagger = self._load_pretrained()
        if tagger is None:
            raise VanerError(f"{Errors.E109.format(name=self.name)} {Messages.VE017}")
        if tagger.asking != self.asking:
            raise VanerError(Messages.VE039.format(asking=self.asking, trained=tagger.asking))
        self._choose_engine(tagger)
        return tagger

    def _choose_engine(self, tagger: "Tagger") -> None:
        """Set what runs the tagger's layers; "auto" is ONNX Runtime where it is there and fits.

        A precision that is asked for by name is torch's: 8 bits are neither fp32 nor bf16.
        RAISES VanerError: VE108, it is not installed; VE109, it cannot run this tagger.
        """
        from spacy_vaner.backbone.onnx_layers import is_installed

        wanted = self.engine
        if wanted == "onnx" and not is_installed():
            raise VanerError(Messages.VE108)
        if wanted == "onnx" and not tagger.fits_onnx:
            raise VanerError(
                Messages.VE109.format(backbone=tagger.backbone_name, device=tagger.device)
            )
        if wanted == "auto":
            fits = self._precision == "auto" and tagger.fits_onnx and is_installed()
            wanted = "onnx" if fits else "torch"
        if tagger.engine != wanted:
            tagger.engine = wanted

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
        trained on the texts of the examples. Training on a tagger that comes with the package goes
        on from its weights; asked the other way than it was trained, it gets a new head.

        labels: the types to ask, if they are not to be those of the settings.
        RAISES VanerError: VE018, the examples are annotated for none of the types; VE033, there
            are adapters, which new weights would leave without their tagger.
        """
        import torch

        validate_get_examples(get_examples, "VanerNER.initialize")
        if adapted := [name for adapter in self.adapters for name in adapter.types] or [
            name for entry in self._configured_adapters for name in entry["types"]
        ]:
            raise VanerError(Messages.VE033.format(types=", ".join(adapted)))
        if labels is not None:
            self.types = labels
        warn_of_misspelled_types(self, (), self._misspelled)
        check_annotation(get_examples(), self.types, self.label_map)
        device, precision = self._placement()
        tagger_model.initialize_tagger(
            self.model,
            asking=self.asking,
            device=device,
            precision=precision,
            # spaCy seeds torch from [training] seed before it initialises a pipeline.
            seed=int(torch.randint(2**31 - 1, ())),
            texts=(example.reference.text for example in get_examples()),
        )

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from a batch: one pass per window, and per annotated type unless asked jointly.

        A document is asked only for types that it is annotated for. The loss is the mean
        cross-entropy of the labelled subwords. Where there are adapters, those of them that are
        trainable learn and nothing else does: other types give no loss.

        drop: not used; the model's own `dropout` and the adapter's are.
        RAISES VanerError: VE034, there are adapters, and none is trainable.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, "VanerNER.update")
        tagger = self._require_tagger()
        if self.adapters and not any(adapter.trainable for adapter in self.adapters):
            raise VanerError(Messages.VE034.format(types=describe(self.adapters)))
        rows: list[Row] = []
        # Per row one for each of its answers.
        targets: list[list[Target]] = []
        for example in examples:
            for row, of_row in training_rows(
                self.model, example, self.types, corpus=self.corpus, label_map=self.label_map
            ):
                rows.append(row)
                targets.append(of_row)
        n_labels = sum(len(target.tags) for of_row in targets for target in of_row)
        if tagger.known_types is not None and not self.adapters:
            learned = [n for one in examples for n in learned_types(self.model, one, self.types)]
            tagger.known_types = tuple(dict.fromkeys([*tagger.known_types, *learned]))
        for batch in plan_rows(rows, self.batch_subwords):
            logits, backprop = self.model.begin_update([rows[index] for index in batch])
            answers = [(rows[index], target) for index in batch for target in targets[index]]
            loss, gradient = loss_and_gradient(
                logits, [row for row, _ in answers], [target for _, target in answers], n_labels
            )
            backprop(gradient)
            losses[self.name] += loss
        if sgd and rows:
            self.finish_update(sgd)
        return losses

    # Adapters

    @property
    def adapters(self) -> tuple["Adapter", ...]:
        """The adapters over the tagger: `.types`, `.lora`, and `.trainable`, which can be set.

        A type that an adapter is for is tagged by it, every other type by the tagger beneath,
        which is frozen as long as there are any.
        """
        return adapters_of(self.model)

    def add_adapter(self, types: Sequence[str] | str, *, lora: Lora | None = None) -> "Adapter":
        """Put a fresh adapter over the trained tagger, to be trained for further types.

        Until it is removed, updates change it alone: predictions of other types stay as they are,
        to the bit. Before it is trained it answers as the tagger beneath does.

        types: what it is for; asked from now on. Types that the tagger knows are allowed: then
            the adapter stands in for it.
        lora: the size of its weights; by default, the one of `spacy-vaner.lora.v1`.
        RAISES VanerError: VE031, a type has an adapter already; VE180, lora.targets fit no layer.
        """
        import torch

        self._require_tagger()
        # As in initialize: spaCy seeds torch before a training begins.
        seed = int(torch.randint(2**31 - 1, ()))
        adapter = new_adapter(self.model, check_types(types), lora or Lora(), seed=seed)
        self._ask_too(adapter.types)
        return adapter

    def remove_adapter(self, types: Sequence[str] | str) -> None:
        """Take the adapter for these types off. Types that came with it are no longer asked.

        RAISES VanerError: VE032, there is no adapter for just these types.
        """
        tagger, adapter = self._require_tagger(), find_adapter(self.model, check_types(types))
        tagger.adapters.remove(adapter)
        gone = set(adapter.types).intersection(self._types_of_adapters)
        self._types_of_adapters = [n for n in self._types_of_adapters if n not in gone]
        # Where nothing else was asked, there has to be something.
        self.types = [name for name in self.types if name not in gone] or self.types

    def save_adapter(self, types: Sequence[str] | str, path: str | Path) -> None:
        """Write the adapter for these types to a folder, for load_adapter and `adapters`.

        RAISES VanerError: VE032, there is no adapter for just these types.
        """
        self._require_tagger()
        write_adapter(find_adapter(self.model, check_types(types)), Path(path))

    def load_adapter(self, path: str | Path) -> "Adapter":
        """Put on an adapter that save_adapter wrote, over the same tagger; it is frozen.

        RAISES VanerError: VE031, a type has an adapter already; VE036, it was trained under
            another instruction; VE180-VE185, it is damaged or was trained over another tagger.
        """
        self._require_tagger()
        adapter = read_adapter(self.model, Path(path))
        self._ask_too(adapter.types)
        return adapter

    def _ask_too(self, types: Sequence[str]) -> None:
        new = [name for name in types if name not in self.types]
        self._types_of_adapters += new
        self.types = (*self.types, *new)

    def _load_configured_adapters(self, saved_configured: Sequence[Mapping[str, Any]]) -> None:
        """Put on what the config names, unless it named the same when the component was saved.

        Then they are stored with it. As with other settings an override wins: adapters that the
        config named then go, those that it names now are loaded; what was put on live stays.
        """
        entries = self._configured_adapters
        if entries == list(saved_configured):
            return
        named = {name for entry in [*saved_configured, *entries] for name in entry["types"]}
        for adapter in self.adapters:
            if not named.isdisjoint(adapter.types):
                self.remove_adapter(adapter.types)
        for entry in entries:
            adapter = self.load_adapter(entry["path"])
            if set(adapter.types) != set(entry["types"]):
                raise VanerError(
                    Messages.VE037.format(
                        where=entry["path"], found=list(adapter.types), expected=entry["types"]
                    )
                )

    # Saving

    def _files(self) -> dict[str, bytes]:
        """Everything that is saved: file name to content."""
        # A saved pipeline holds its weights, whatever another version of the package carries.
        self._load_pretrained()
        model_files = tagger_model.model_files(self.model)
        settings = {
            "configured": self._configured,
            "now": read_settings(self),
            "files": sorted(model_files),
            "adapters": {
                "configured": self._configured_adapters,
                "types": self._types_of_adapters,
            },
        }
        return {_SETTINGS_FILE: json.dumps(settings, indent=2).encode("utf8"), **model_files}

    def _load_files(self, files: Mapping[str, bytes]) -> None:
        try:
            # Not srsly's: it reads 0.7 as 0.7000000000000001, which would pass for a new setting.
            settings = json.loads(files[_SETTINGS_FILE])
            configured, now = dict(settings["configured"]), dict(settings["now"])
            names = list(settings["files"])
            # A component that was saved before there were adapters has none.
            adapters = settings.get("adapters", {"configured": [], "types": []})
            saved_adapters, types_of_adapters = adapters["configured"], list(adapters["types"])
        except (ValueError, KeyError, TypeError) as error:
            raise VanerError(
                Messages.VE023.format(file=_SETTINGS_FILE, error=repr(error))
            ) from error
        if "repeat_threshold" not in now:
            # Saved before there was this setting: what it predicts must not change.
            configured["repeat_threshold"] = self._configured["repeat_threshold"]
            now["repeat_threshold"] = None
        restore_settings(self, configured=self._configured, saved_configured=configured, saved=now)
        if lost := [name for name in names if name not in files and "/" in name]:
            # The tagger says for itself what it lacks.
            folder, _, name = lost[0].rpartition("/")
            raise VanerError(Messages.VE181.format(where=folder, file=name))
        if names:
            device, precision = self._placement()
            tagger_model.load_model_files(
                self.model,
                {name: files[name] for name in names if name in files},
                device=device,
                precision=precision,
            )
            self._types_of_adapters = types_of_adapters
            self._load_configured_adapters(saved_adapters)

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
            (path / name).parent.mkdir(exist_ok=True, parents=True)
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
        files = [*path.iterdir(), *path.glob("adapters/*/*")]
        self._load_files(
            {
                file.relative_to(path).as_posix(): file.read_bytes()
                for file in files
                if file.is_file()
            }
        )
        if "vocab" not in exclude and (path / "vocab").is_dir():
            self.vocab.from_disk(path / "vocab", exclude=exclude)
        return self
