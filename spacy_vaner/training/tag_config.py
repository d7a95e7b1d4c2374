"""The settings of a run that trains a tagger (docs/tagger.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, cast

from spacy_vaner.knowledge.rows import MODES, RUNNING_TEXT, Mode, RowSettings
from spacy_vaner.training.config import BackboneShape, OptimizerSettings, RunSettings, setting


@dataclass(frozen=True, kw_only=True)
class DbrConfig:
    """Rows of names beside the windows (docs/knowledge.md, section 3).

    mode: "retrieved", names that are like phrases of the sentence; "random", as many from the whole
        knowledge base; "off".
    share: of the sentences that begin in a window, how many give a row.
    weight: of a label in such a row, where one in a text has 1.
    n_positive, n_negative: at most so many names of an asked type, and of others.
    separator: between two names; " " is the authors'.
    every_epoch: rows are drawn anew in every epoch; false: once.
    """

    mode: str = setting("off", choices=MODES)
    share: float = setting(1.0, least=0, most=1)
    weight: float = setting(1.0, least=0)
    n_positive: int = setting(10, least=0)
    n_negative: int = setting(5, least=0)
    separator: str = setting(RUNNING_TEXT)
    every_epoch: bool = setting(True)

    def rows(self) -> RowSettings:
        """RAISES VanerError: VE612, a separator that is none."""
        return RowSettings(
            mode=cast(Mode, self.mode),
            n_positive=self.n_positive,
            n_negative=self.n_negative,
            separator=self.separator,
            every_epoch=self.every_epoch,
        )


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """What keeps a tagger from learning its training text by heart; all 0 = nothing.

    mask_share: of the units, shown as the mask.
    replace_share: of the distinct mentions of a window, that give way to another mention of their
        type and corpus.
    word_dropout: share of the words that are read without word features.
    lexicon_dropout: share of the rows that are read without the lexicon.
    hidden_dropout: of what every layer adds to the states, and of the embedding; for LLaMAs.
    """

    mask_share: float = setting(0.0, least=0, most=0.9)
    replace_share: float = setting(0.0, least=0, most=1)
    word_dropout: float = setting(0.0, least=0, most=1)
    lexicon_dropout: float = setting(0.5, least=0, most=1)
    hidden_dropout: float = setting(0.0, least=0, most=0.9)


@dataclass(frozen=True, kw_only=True)
class TagConfig(RunSettings):
    """A run of tagging.

    rows: folder that `python -m spacy vaner rows` made.
    backbone: folder of a pretrained backbone; null = random weights of the shape `start`.
    tagger: folder of a trained tagger of this shape whose weights, head included, it begins with;
        null = those of the backbone, and a new head.
    teachers: folders of trained taggers. For `teacher_share` of the loss the mean of their
        probabilities is what is to be answered, in the place of the label.
    lexicon: file of names that the backbone's word features know of from now on; null = none, or
        what the backbone has.
    asking: "joint", the text is read once for all types, or "per_type", once per type behind its
        instruction.
    question_width: of the joint head's hidden layer.
    with_corpus, without_corpus: wordings of the instruction for "per_type", with {type} and
        {corpus}; null = the paper's.
    causal: each subword sees those before it alone. For comparison: the result has no recipe, so no
        pipeline is made of it.
    labelled_subwords: "first" or "all" subwords of a unit give loss.
    dropout: between states and head.
    averaging: decay of averages of the weights, which are measured and kept in the weights' place;
        0 = the weights themselves.
    mixture: how much more often than by its size a corpus is read, by its name or by that of its
        file; 0 leaves it out.
    without: corpora, files and types that are neither trained on nor measured.
    leave_out: corpora or files that are not trained on; dev figures are those of them alone.
    size_power: without `mixture` a corpus is read in proportion to its subwords to this power.
    drop_corpus: share of the windows that are asked without corpus names.
    window_subwords: longest window of text.
    windows_per_step: per update; pass_subwords: most subwords at a time, padding included.
    layer_decay: the rate of each layer is so much lower than that of the layer above it.
    dbr: rows of names beside the windows.
    dev_files: files or corpora that are measured on; empty = all that have dev. With `leave_out`
        it is not read.
    dev_documents: of each dev file, spread over it evenly.
    dev_names: dev documents are asked without corpus names ("none"), with them ("given"), or both.
    best_by: the figure that chooses what is kept as the best: "f", over all mentions, or
        "macro_f", the mean over corpora and types; with "_named", those with corpus names.
    """

    FREE: ClassVar[frozenset[str]] = RunSettings.FREE | {
        *(
            "rows",
            "backbone",
            "tagger",
            "lexicon",
            "pass_subwords",
            "dev_files",
            "dev_documents",
            "dev_names",
            "best_by",
        ),
    }

    rows: str = setting()
    backbone: str | None = setting(None)
    start: BackboneShape = field(default_factory=BackboneShape)
    tagger: str | None = setting(None)
    teachers: list[str] = setting(factory=list)
    teacher_share: float = setting(0.5, least=0, most=1)
    lexicon: str | None = setting(None)
    asking: str = setting("joint", choices=("joint", "per_type"))
    question_width: int = setting(128, least=1)
    with_corpus: str | None = setting(None)
    without_corpus: str | None = setting(None)
    causal: bool = setting(False)
    labelled_subwords: str = setting("first", choices=("first", "all"))
    dropout: float = setting(0.1, least=0, most=0.9)
    averaging: float = setting(0.0, least=0, most=0.99999)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    mixture: dict[str, float] = setting(factory=dict, least=0)
    without: list[str] = setting(factory=list)
    leave_out: list[str] = setting(factory=list)
    size_power: float = setting(0.5, least=0, most=1)
    drop_corpus: float = setting(0.5, least=0, most=1)
    window_subwords: int = setting(256, least=16)
    windows_per_step: int = setting(32, least=1)
    pass_subwords: int = setting(8192, least=16)
    layer_decay: float = setting(1.0, least=0.01, most=1)
    dev_files: list[str] = setting(factory=list)
    dev_documents: int = setting(100, least=0)
    dev_names: str = setting("none", choices=("none", "given", "both"))
    best_by: str = setting("f", choices=("f", "macro_f", "f_named", "macro_f_named"))
    dbr: DbrConfig = field(default_factory=DbrConfig)
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(name="adamw", lr=5e-4)
    )

    def contradictions(self) -> list[str]:
        faults = super().contradictions() + self.start.contradictions()
        if (self.with_corpus is None) != (self.without_corpus is None):
            faults.append("with_corpus, without_corpus: give both or none of them")
        measured = {"none": (False,), "given": (True,), "both": (False, True)}[self.dev_names]
        if self.best_by.endswith("_named") not in measured:
            faults.append(f"best_by = {self.best_by}: dev_names = {self.dev_names} leaves it out")
        self.dbr.rows()
        if not faults:
            self.start.settings("sdpa")
        return faults
