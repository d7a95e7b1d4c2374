"""Tagging as a task of the loop: labels of prepared documents, F1 on dev, a saved tagger.

What is asked, and how, is written beside the weights (`recipe.json`), so that a pipeline that
asks the same way can be made of them (`python -m spacy vaner assemble`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from spacy_vaner.backbone.attention import look_left_only
from spacy_vaner.backbone.building import build_tagger
from spacy_vaner.backbone.device import choose_device, choose_precision
from spacy_vaner.backbone.lexicon import LexiconTable
from spacy_vaner.backbone.saving import set_tagger_weights, tagger_files, tagger_from_files
from spacy_vaner.backbone.settings import HFBackbone
from spacy_vaner.backbone.tokenizer import SubwordTokenizer
from spacy_vaner.backbone.word_features import WordVectors, add_lexicon, word_embedding
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.metrics import Counts
from spacy_vaner.training.asking import Asker, run_pass, score
from spacy_vaner.training.checkpoints import write_folder
from spacy_vaner.training.dbr import NameRows, SentenceNames
from spacy_vaner.training.language_model import backbone_files, make_decoder
from spacy_vaner.training.loop import OnStep, Outcome, run
from spacy_vaner.training.mixture import (
    asked_of,
    asked_questions,
    dev_sources,
    training_sources,
)
from spacy_vaner.training.rows_folder import PreparedRows
from spacy_vaner.training.tag_batches import (
    Marks,
    TagBatches,
    TagPass,
    spread,
)
from spacy_vaner.training.tag_config import NoiseConfig, TagConfig
from spacy_vaner.training.teachers import Teachers

RECIPE_FILE = "recipe.json"
START_FOLDER = "start"

# What a pass costs beside its subwords, as so many of them: on a CPU the gradient of the embedding,
# on CUDA the launches.
_PASS_COST = {"cpu": 64, "cuda": 4096}
# What a layer adds to the states goes through these.
_BRANCHES = ("o_proj", "down_proj")
_LAYER = re.compile(r"\.layers?\.(\d+)\.")


def train_tagger(
    config: TagConfig, output: Path, *, resume: bool = False, on_step: OnStep | None = None
) -> Outcome:
    """Train a tagger to its end, to the time limit, or to the first SIGINT or SIGTERM.

    output: folder of the run: log.jsonl, checkpoints/, best/, the tagger that did best on dev, and
        tagger/, the one at the end; start/ where it began with random weights.
    resume: go on from the newest checkpoint there; where there is none, start.
    RAISES VanerError: VE507, VE523-VE526, the rows; VE509, VE511, VE512, VE514, the run's files;
        VE513, a loss that is no number; VE101, VE103-VE107, VE120-VE125, settings and backbone;
        VE142, VE143, the lexicon; VE514, the tagger to begin with, or a teacher; VE508, VE530,
        noise that the backbone has no place for; VE531.
    """
    return run(
        lambda: Tagging(config, output),
        config,
        output,
        resume=resume,
        on_step=on_step,
        averaging=config.averaging,
    )


def mean_tagger(folders: Sequence[Path], output: Path) -> None:
    """Write the tagger whose weights are the mean of those of several, of one run or of several.

    Weights that began as one stay near enough to each other for their mean to do better than each.

    folders: of taggers (a run's best, tagger, checkpoints) of one shape and tokenizer; the recipe
        is the last one's.
    RAISES VanerError: VE514, a folder holds no tagger, or one of another shape or tokenizer, or
        with word vectors or a lexicon for other words; VE512.
    SOURCE: Wortsman et al., "Model soups" (2022), uniform soup.
    """
    means: dict[str, Tensor] = {}
    tokenizer = ""
    for number, folder in enumerate(folders, start=1):
        try:
            files = {file.name: file.read_bytes() for file in folder.iterdir()}
            tagger = tagger_from_files(files, device="cpu", precision="fp32")
            recipe = files[RECIPE_FILE]
        except (OSError, KeyError, VanerError) as error:
            raise VanerError(Messages.VE514.format(path=folder, reason=repr(error))) from None
        weights = dict(tagger.saved_parameters())
        if number == 1:
            tokenizer = tagger.tokenizer.fingerprint()
            means = {name: weight.detach() for name, weight in weights.items()}
        reason = _difference(weights, means)
        if tagger.tokenizer.fingerprint() != tokenizer:
            reason = "its tokenizer is not that"
        if reason is not None:
            reason = f"{reason} of {folders[0]}"
            raise VanerError(Messages.VE514.format(path=folder, reason=reason))
        for name, weight in weights.items():
            if weight.is_floating_point():
                means[name] = means[name].lerp(weight.detach(), 1 / number)
    for name, weight in weights.items():
        weight.data = means[name]
    write_folder(output, {**tagger_files(tagger), RECIPE_FILE: recipe})


def _difference(weights: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> str | None:
    """What keeps weights from having a mean with others; None if nothing does."""
    kinds = {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}
    if kinds != {name: (tensor.shape, tensor.dtype) for name, tensor in means.items()}:
        return "its tensors are not those"
    for name, tensor in weights.items():
        # Keys of word vectors and hashes of names tell what the rows of other tensors stand for.
        if not tensor.is_floating_point() and not torch.equal(tensor, means[name]):
            return f"its {name} is not that"
    return None


class Tagging:
    """What a run of tagging computes with, made from its settings."""

    result_folder = "tagger"
    weights_file = "weights.safetensors"

    def __init__(self, config: TagConfig, output: Path) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        self.rows = PreparedRows.open(Path(config.rows))
        self.data_sha256 = self.rows.data_sha256(with_dbr=config.dbr.mode != "off")
        folder = Path(config.backbone) if config.backbone else self._start(output)
        attention = config.attention_on(self.device.type, self.precision)
        self.tagger = build_tagger(
            HFBackbone(str(folder), attn_implementation=attention),
            None,
            dropout=config.dropout,
            question_width=config.question_width if config.asking == "joint" else None,
            device=str(self.device),
            precision=self.precision,
            seed=config.seed,
        )
        if config.causal:
            if word_embedding(self.tagger.backbone) is not None:
                raise VanerError(Messages.VE531.format(backbone=folder))
            look_left_only(self.tagger.backbone)
        if self.tagger.tokenizer.fingerprint() != self.rows.header.tokenizer:
            raise VanerError(Messages.VE526.format(backbone=folder, rows=config.rows))
        if config.lexicon is not None:
            add_lexicon(self.tagger.backbone, LexiconTable.from_file(Path(config.lexicon)))
        if config.tagger is not None:
            self.set_weights(Path(config.tagger))
        self._teachers = (
            Teachers([Path(folder) for folder in config.teachers], self.tagger)
            if config.teachers
            else None
        )
        self._asker = Asker(self.tagger, config.with_corpus, config.without_corpus)
        self._check_lengths()
        self.parameters = {n: p for n, p in self.tagger.named_parameters() if p.requires_grad}
        self.rates = layer_rates(self.parameters, config.layer_decay)
        self._batches = TagBatches(
            training_sources(self.rows.sources, config),
            config,
            make_rows=self._asker.rows,
            padding=self._asker.padding,
            marks=_marks(self.tagger.tokenizer),
            path=Path(config.rows),
            name_rows=self._name_rows(),
            pass_cost=_PASS_COST["cpu" if self.device.type == "cpu" else "cuda"],
        )
        add_dropout(self.tagger.backbone, config.noise)
        self._dev = [
            (source.facts.name, asked_of(document, config))
            for source in dev_sources(self.rows.sources, config)
            for document in spread(source, config.dev_documents)
        ]

    def _start(self, output: Path) -> Path:
        """Write random weights as a backbone's folder, to be read as any other is."""
        folder, shape = output / START_FOLDER, self.config.start
        decoder = make_decoder(
            shape.settings("sdpa"),
            self.rows.tokenizer,
            seed=self.config.seed,
            word_rows=shape.word_rows,
            word_width=shape.word_width,
            vectors=WordVectors.from_file(Path(shape.vectors)) if shape.vectors else None,
        )
        write_folder(folder, backbone_files(decoder, self.rows.tokenizer, torch.float32))
        return folder

    def _name_rows(self) -> NameRows | None:
        """RAISES VanerError: VE627, there are no candidates to draw rows of; VE523."""
        config, facts = self.config, self.rows.header.dbr
        if config.dbr.mode == "off":
            return None
        if facts is None:
            raise VanerError(Messages.VE627.format(path=config.rows, mode=config.dbr.mode))
        return NameRows(
            SentenceNames(Path(config.rows), facts),
            config.dbr,
            self.tagger.tokenizer,
            seed=config.seed,
            asking=config.asking,
            labelled_subwords=config.labelled_subwords,
            longest=config.window_subwords,
        )

    def _check_lengths(self) -> None:
        header = self.rows.header
        longest = max(self.config.window_subwords, header.max_subwords)
        asked = asked_questions(self.rows.sources, self.config)
        questions = {(counts.type, counts.corpus) for counts in asked}
        framed = max((self._asker.n_framing(*question) for question in questions), default=0)
        if longest + framed > self.tagger.max_positions:
            raise VanerError(
                Messages.VE527.format(
                    longest=longest, framed=framed, max_positions=self.tagger.max_positions
                )
            )

    def passes(self, step: int) -> list[TagPass]:
        return self._batches.step(step)

    def facts(self, passes: list[TagPass]) -> dict[str, Any]:
        facts = {"n_labels": sum(one.n_targets for one in passes)}
        if self.config.dbr.mode != "off":
            facts["n_names_left_out"] = sum(one.n_names_left_out for one in passes)
        return facts

    def measured(self, record: dict[str, Any], subwords_per_s: float) -> dict[str, float]:
        return {}

    def loss_sum(self, batch: TagPass) -> Tensor:
        self.tagger.train()
        logits = run_pass(self.tagger, batch)
        positions, tags = (
            torch.from_numpy(array).to(self.device) for array in (batch.positions, batch.tags)
        )
        chosen = logits.flatten(0, 1).index_select(0, positions)
        weights = torch.from_numpy(batch.weights).to(self.device)
        losses = nn.functional.cross_entropy(chosen, tags, reduction="none")
        if self._teachers is not None:
            answers = self._teachers.probabilities(batch, positions)
            taught = nn.functional.cross_entropy(chosen, answers, reduction="none")
            losses = losses.lerp(taught, self.config.teacher_share)
        return (weights * losses).sum()

    def dev_figures(self) -> dict[str, Any]:
        """Strict F1 over all mentions and its mean over corpora and types, and each of these."""
        if not self._dev:
            return {}
        ways = {"none": [False], "given": [True], "both": [False, True]}[self.config.dev_names]
        figures: dict[str, Any] = {}
        for is_named in ways:
            suffix = "_named" if is_named else ""
            counts = score(
                self._asker, self._dev, is_named=is_named, batch_subwords=self.config.pass_subwords
            )
            each = {name: found.f or 0.0 for name, found in counts.items()}
            figures[f"dev_f{suffix}"] = sum(counts.values(), Counts()).f or 0.0
            figures[f"dev_macro_f{suffix}"] = sum(each.values()) / max(1, len(each))
            figures[f"dev_f_per_type{suffix}"] = each
        return {**figures, "best_by": figures[f"dev_{self.config.best_by}"]}

    def files(self) -> dict[str, bytes]:
        if self.config.causal:
            return tagger_files(self.tagger)
        recipe = json.dumps(self.recipe(), indent=2, ensure_ascii=False).encode("utf8")
        return {**tagger_files(self.tagger), RECIPE_FILE: recipe}

    def set_weights(self, path: Path) -> None:
        try:
            files = {file.name: file.read_bytes() for file in path.iterdir()}
            set_tagger_weights(self.tagger, files)
        except (OSError, VanerError) as error:
            raise VanerError(Messages.VE514.format(path=path, reason=error)) from None

    def recipe(self) -> dict[str, Any]:
        """How the tagger is asked, for the pipeline that is made of it."""
        header = self.rows.header
        types: dict[str, int] = {}
        corpora: dict[str, set[str]] = {}
        for counts in asked_questions(
            training_sources(self.rows.sources, self.config), self.config
        ):
            types[counts.type] = types.get(counts.type, 0) + counts.n_mentions
            if counts.corpus is not None:
                corpora.setdefault(counts.type, set()).add(counts.corpus)
        return {
            "asking": self.config.asking,
            "with_corpus": self.config.with_corpus,
            "without_corpus": self.config.without_corpus,
            "labelled_subwords": self.config.labelled_subwords,
            "question_width": self.config.question_width,
            "n_words": header.n_words,
            "overlap": header.overlap,
            "max_subwords": header.max_subwords,
            "types": sorted(types, key=lambda name: -types[name]),
            "corpora": {name: sorted(names) for name, names in sorted(corpora.items())},
        }


def add_dropout(backbone: nn.Module, noise: NoiseConfig) -> None:
    """Give a backbone the dropout that LLaMAs have none of; it acts in training only.

    RAISES VanerError: VE530, the backbone has no such places.
    """

    def drop(module: nn.Module, _: object, output: Tensor) -> Tensor:
        return nn.functional.dropout(output, noise.hidden_dropout, training=module.training)

    if noise.hidden_dropout:
        places = [m for n, m in backbone.named_modules() if n.endswith(_BRANCHES)]
        if not places:
            raise VanerError(Messages.VE530.format(share=noise.hidden_dropout))
        embedding: Any = backbone
        for module in (embedding.get_input_embeddings(), *places):
            module.register_forward_hook(drop)
    words = word_embedding(backbone)
    if words is not None:
        words.word_dropout = noise.word_dropout
        if words.lexicon is not None:
            words.lexicon.dropout = noise.lexicon_dropout


def _marks(tokenizer: SubwordTokenizer) -> Marks:
    begins_word = numpy.zeros(tokenizer.n_tokens, bool)
    for id_, (_, begins) in tokenizer.subword_texts().items():
        begins_word[id_] = begins
    return Marks(tokenizer.named_id("mask_token"), begins_word)


def layer_rates(names: Iterable[str], decay: float) -> dict[str, float]:
    """The share of the learning rate per parameter: 1 at the top, `decay` times it per layer below.

    What has no number is taken for the top (head, last norm), the embedding for a layer below all.
    """
    names = list(names)
    numbers = {name: int(found[1]) for name in names if (found := _LAYER.search(name))}
    n_layers = max(numbers.values(), default=-1) + 1
    depths = {
        name: n_layers - numbers[name] if name in numbers else (n_layers + 1) * ("embed" in name)
        for name in names
    }
    return {name: decay**depth for name, depth in depths.items()}
