"""Between thinc and torch: where a model keeps its tagger, a batch both ways, updates."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, cast

import numpy as np
import srsly
from thinc.api import CupyOps, Model, Optimizer, Shim, get_current_ops
from thinc.types import FloatsXd

from spacy_vaner.backbone.batching import padded_length
from spacy_vaner.decoding import FloatArray
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.optimizer import AdamW
from spacy_vaner.reading import Row

if TYPE_CHECKING:
    from spacy_vaner.backbone.joint import Asked
    from spacy_vaner.backbone.tagger import Tagger

TaggerModel = Model[list[Row], FloatArray]


class TaggerShim(Shim):
    """Lets thinc's optimiser train the torch parameters, and keeps the place of the tagger."""

    _model: Optional["Tagger"]

    def __init__(self) -> None:
        super().__init__(None)
        self._process = os.getpid()

    @property
    def tagger(self) -> Optional["Tagger"]:
        return self._model

    @tagger.setter
    def tagger(self, tagger: Optional["Tagger"]) -> None:
        self._model = tagger

    def run(self, rows: Sequence[Row], is_train: bool) -> tuple[Any, Any]:
        """Run one batch, whose rows are of one adapter.

        RETURNS: logits (answers, longest row, 3) as a torch tensor, and the tagger.
        """
        import torch

        tagger = self._model
        assert tagger is not None
        if self._process != os.getpid():
            # A forked worker inherits OpenMP's threads in a state in which they hang.
            if tagger.device.type == "cuda":
                raise VanerError(Messages.VE013)
            torch.set_num_threads(1)
            self._process = os.getpid()
        longest = max(len(row.input_ids) for row in rows)
        width = padded_length(longest, is_train=is_train)
        width = min(width, max(longest, tagger.max_positions))
        input_ids = np.full((len(rows), width), tagger.tokenizer.pad_id, dtype=np.int64)
        for line, row in enumerate(rows):
            input_ids[line, : len(row.input_ids)] = row.input_ids
        lengths = torch.tensor([len(row.input_ids) for row in rows], device=tagger.device)
        batch = torch.from_numpy(input_ids).to(tagger.device)
        tagger.train(is_train)
        with contextlib.nullcontext() if is_train else torch.inference_mode():
            asked = _ask(tagger, rows) if tagger.asking == "joint" else None
            return tagger(batch, lengths, rows[0].adapter, asked), tagger

    def finish_update(self, optimizer: Optimizer) -> None:
        from thinc.util import torch2xp, xp2torch

        if self._model is None:
            return
        self._model.forget_questions()
        if isinstance(optimizer, AdamW):
            optimizer.step_module(self._model)
            return
        if self._model.device.type == "cuda" and not isinstance(get_current_ops(), CupyOps):
            raise VanerError(Messages.VE025)
        for name, parameter in self._model.named_parameters():
            if parameter.grad is None:
                continue
            weights = cast(FloatsXd, torch2xp(parameter.data))
            gradient = cast(FloatsXd, torch2xp(parameter.grad))
            updated, _ = optimizer((self.id, name), weights, gradient)
            # Copied in place: a new tensor per step keeps the one before alive, step after step.
            parameter.data.copy_(xp2torch(updated))
            parameter.grad.zero_()

    @contextlib.contextmanager
    def use_params(self, params: Mapping[Any, Any]) -> Iterator[None]:
        import torch
        from thinc.util import xp2torch

        averaged = {}
        if self._model is not None:
            averaged = {
                name: params[(self.id, name)]
                for name, parameter in self._model.named_parameters()
                # Of what is frozen by now, averages may be left from before.
                if parameter.requires_grad and (self.id, name) in params
            }
            self._model.forget_questions()
        parameters = dict(self._model.named_parameters()) if self._model is not None else {}
        backup = {name: parameters[name].data.clone() for name in averaged}
        with torch.no_grad() if averaged else contextlib.nullcontext():
            for name, value in averaged.items():
                parameters[name].copy_(xp2torch(value, device=parameters[name].device))
        try:
            yield
        finally:
            for name, value in backup.items():
                parameters[name].data = value
            if self._model is not None:
                self._model.forget_questions()

    def to_device(self, device_type: str, device_id: int) -> None:
        if self._model is not None:
            self._model.to("cpu" if device_type == "cpu" else f"cuda:{device_id}")

    def to_bytes(self) -> bytes:
        from spacy_vaner.backbone.saving import tagger_files

        files = tagger_files(self._model) if self._model is not None else {}
        return bytes(srsly.msgpack_dumps(files))

    def from_bytes(self, data: bytes) -> "TaggerShim":
        from spacy_vaner.backbone.saving import tagger_from_files

        files = srsly.msgpack_loads(data)
        if files:
            self._model = tagger_from_files(files, device="cpu", precision="fp32")
        return self


def run_batch(
    model: TaggerModel, rows: list[Row], is_train: bool
) -> tuple[FloatArray, Callable[[FloatArray], list[Row]]]:
    """Run one batch. RETURNS: logits (answers, longest row, 3), fp32, on the CPU."""
    import torch

    logits, tagger = shim_of(model).run(rows, is_train)

    def backprop(d_logits: FloatArray) -> list[Row]:
        gradient = torch.from_numpy(np.asarray(d_logits, dtype=np.float32)).to(tagger.device)
        torch.autograd.backward([logits], [gradient])
        return []

    return logits.detach().float().cpu().numpy(), backprop


def _ask(tagger: "Tagger", rows: Sequence[Row]) -> "Asked":
    """Questions of rows as the tagger takes them."""
    import torch

    from spacy_vaner.backbone.joint import Asked

    texts = list(dict.fromkeys(text for row in rows for text in row.questions))
    numbers = {text: number for number, text in enumerate(texts)}
    asked = [(line, numbers[text]) for line, row in enumerate(rows) for text in row.questions]
    lines, places = torch.tensor(asked, device=tagger.device).unbind(1)
    vectors = tagger.question_vectors(texts, rows[0].adapter)
    return Asked(lines, vectors.index_select(0, places))


def shim_of(model: TaggerModel) -> TaggerShim:
    """Where a model keeps its tagger."""
    shim = model.shims[0]
    assert isinstance(shim, TaggerShim)
    return shim


def get_tagger(model: TaggerModel) -> Optional["Tagger"]:
    """The torch module with backbone, adapter and head; None before weights are made or loaded."""
    return shim_of(model).tagger


def set_tagger(model: TaggerModel, tagger: Optional["Tagger"]) -> None:
    """Give the model its weights."""
    shim_of(model).tagger = tagger
