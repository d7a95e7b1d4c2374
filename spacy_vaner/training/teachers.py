"""Teachers: trained taggers whose answers a run learns beside the labels of its corpora."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from spacy_vaner.backbone.saving import tagger_from_files
from spacy_vaner.backbone.tagger import Tagger
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.training.asking import run_pass
from spacy_vaner.training.tag_batches import TagPass


class Teachers:
    """Several taggers, asked what the pupil is asked, of the text that the pupil reads.

    folders: of taggers (a run's best or tagger, a mean) with the pupil's tokenizer, asked as it is.
    RAISES VanerError: VE514, a folder holds no such tagger.
    SOURCE: Hinton et al., "Distilling the knowledge in a neural network" (2015), at temperature 1.
    """

    def __init__(self, folders: Sequence[Path], pupil: Tagger) -> None:
        self._taggers = []
        for folder in folders:
            try:
                files = {file.name: file.read_bytes() for file in folder.iterdir()}
                tagger = tagger_from_files(files, device=pupil.device, precision=pupil.precision)
            except (OSError, VanerError) as error:
                raise VanerError(Messages.VE514.format(path=folder, reason=error)) from None
            for name, own, wanted in (
                ("tokenizer", tagger.tokenizer.fingerprint(), pupil.tokenizer.fingerprint()),
                ("way of asking", tagger.asking, pupil.asking),
            ):
                if own != wanted:
                    reason = f"its {name} is not that of the tagger that it is to teach"
                    raise VanerError(Messages.VE514.format(path=folder, reason=reason))
            self._taggers.append(tagger.requires_grad_(False).eval())

    @torch.no_grad()
    def probabilities(self, batch: TagPass, positions: Tensor) -> Tensor:
        """The mean of what they answer: (labels, 3), fp32.

        positions: (labels,), as in TagPass, on the taggers' device.
        """
        answers = [
            run_pass(tagger, batch).flatten(0, 1).index_select(0, positions).softmax(-1)
            for tagger in self._taggers
        ]
        return torch.stack(answers).mean(0)
