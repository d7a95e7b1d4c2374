"""Pretraining as a task of the loop: masked subwords of packed text, the dev loss, the result."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spacy_vaner.backbone.device import choose_device, choose_precision
from spacy_vaner.backbone.word_features import WordVectors
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.training.batches import Batch, Batches
from spacy_vaner.training.config import PretrainConfig
from spacy_vaner.training.language_model import (
    WEIGHTS_FILE,
    LanguageModel,
    autocast,
    backbone_files,
    flops_per_subword,
    make_decoder,
    set_weights,
)
from spacy_vaner.training.loop import OnStep, Outcome, run
from spacy_vaner.training.names import NameIndex
from spacy_vaner.training.processes import Processes
from spacy_vaner.training.token_file import PreparedText

# exp beyond it is no float.
_HIGHEST_EXPONENT = 700.0


def pretrain(
    config: PretrainConfig,
    output: Path,
    *,
    resume: bool = False,
    init_weights: Path | None = None,
    on_step: OnStep | None = None,
) -> Outcome:
    """Train a backbone to its end, to the time limit, or to the first SIGINT or SIGTERM.

    output: folder of the run: log.jsonl, checkpoints/, and backbone/ when it is finished.
    resume: go on from the newest checkpoint there; where there is none, start.
    init_weights: folder or file of weights to start from, with fresh optimisers.
    RAISES VanerError: VE507, VE517, the text; VE509, VE511, VE512, VE514, the run's files; VE513,
        a loss that is no number; VE101, VE103-VE105, settings; VE532-VE534, several processes.
    """
    processes = Processes.joined(config.device)
    n_passes = config.rows_per_step // config.rows_per_pass
    if n_passes % processes.n:
        raise VanerError(Messages.VE534.format(n_passes=n_passes, n=processes.n))
    outcome = run(
        lambda: Pretraining(config),
        config,
        output,
        resume=resume,
        on_step=on_step,
        init_weights=init_weights,
        processes=processes,
    )
    processes.leave()
    return outcome


class Pretraining:
    """What a run of pretraining computes with, made from its settings."""

    result_folder = "backbone"
    weights_file = WEIGHTS_FILE

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        data = Path(config.data)
        self.text = PreparedText.open(data)
        self.data_sha256 = self.text.header.sha256["train"]
        settings = config.backbone.settings(config.attention_on(self.device.type, self.precision))
        vocabulary = self.text.vocabulary
        shape = config.backbone
        self.decoder = make_decoder(
            settings,
            self.text.tokenizer,
            seed=config.seed,
            word_rows=shape.word_rows,
            word_width=shape.word_width,
            vectors=WordVectors.from_file(Path(shape.vectors)) if shape.vectors else None,
        )
        self.decoder.to(self.device)
        self.parameters = {n: p for n, p in self.decoder.named_parameters() if p.requires_grad}
        self.rates: dict[str, float] = {}
        objective = config.objective
        replaces = objective.name == "rtd"
        self.model = LanguageModel(
            self.decoder,
            replaced_share=objective.masking_rate if replaces else None,
            compile=config.compile,
        )
        names = None
        if objective.names is not None:
            names = NameIndex.from_file(Path(objective.names), self.text.tokenizer)
            both = self.data_sha256 + names.sha256()
            self.data_sha256 = hashlib.sha256(both.encode("ascii")).hexdigest()

        def batches(split: str) -> Batches:
            return Batches(
                self.text.train if split == "train" else self.text.dev,
                objective=config.objective,
                vocabulary=vocabulary,
                row_subwords=config.row_subwords,
                seed=config.seed,
                split=split,
                path=data,
                names=names,
            )

        self.batches = batches("train")
        self.dev = batches("dev").fixed(n_rows=config.dev_rows, rows_per_pass=config.rows_per_pass)
        share = 1.0 if replaces else objective.masking_rate
        self._flops = {
            causal: flops_per_subword(
                self.decoder,
                row_subwords=config.row_subwords,
                predicted_share=predicted,
                predicts_subwords=causal or not replaces,
            )
            for causal, predicted in ((False, share), (True, objective.causal_rate))
        }

    def passes(self, step: int) -> list[Batch]:
        config = self.config
        return self.batches.step(
            step, n_rows=config.rows_per_step, rows_per_pass=config.rows_per_pass
        )

    def facts(self, passes: list[Batch]) -> dict[str, Any]:
        return {"causal": passes[0].causal}

    def flops_per_subword(self, *, causal: bool) -> float:
        """Operations of a training step per subword read."""
        return self._flops[causal]

    def measured(self, record: dict[str, Any], subwords_per_s: float) -> dict[str, float]:
        """The share of the device's rate that the model's own operations take, if it is known."""
        if self.config.peak_tflops is None:
            return {}
        flops = self.flops_per_subword(causal=record["causal"])
        return {"flops_share": flops * subwords_per_s / self.config.peak_tflops / 1e12}

    def loss_sum(self, batch: Batch) -> Tensor:
        input_ids, positions, targets = (
            torch.from_numpy(array).to(self.device)
            for array in (batch.input_ids, batch.positions, batch.targets)
        )
        with autocast(self.device, self.precision):
            loss: Tensor = self.model(input_ids, positions, targets, batch.causal)
        return loss

    def dev_figures(self) -> dict[str, Any]:
        """The loss per prediction over the dev rows, in nats, and its perplexity."""
        with torch.no_grad():
            total = sum(float(self.loss_sum(batch)) for batch in self.dev)
        loss = total / sum(batch.n_targets for batch in self.dev)
        return {"dev_loss": loss, "dev_perplexity": math.exp(min(loss, _HIGHEST_EXPONENT))}

    def files(self) -> dict[str, bytes]:
        return backbone_files(self.decoder, self.text.tokenizer, torch.float32)

    def set_weights(self, path: Path) -> None:
        set_weights(self.decoder, path)
