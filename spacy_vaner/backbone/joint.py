"""Joint asking: a text is read once, without an instruction, and labelled for many questions.

A question is a type with or without a corpus name, any text. The backbone itself reads it: its
vector is the mean of the states of its subwords, so a type that was never trained has one too. The
head puts a state of the text and the vector of a question together.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Asked(NamedTuple):
    """What is asked of the rows of a batch; one answer per row and question.

    rows: (answers,), the row that each answer is about.
    vectors: (answers, hidden_size), of the questions.
    """

    rows: Tensor
    vectors: Tensor


class JointHead(nn.Module):
    """The labels of states under questions: W gelu(A state + B question + c) + d.

    A is computed once per subword, whatever is asked; a further question costs a sum and a layer
    from `width` to the labels.

    hidden_size: of states and of questions' vectors.
    width: of the layer between.
    """

    def __init__(self, hidden_size: int, width: int, n_labels: int) -> None:
        super().__init__()
        self.state = nn.Linear(hidden_size, width, dtype=torch.float32)
        self.question = nn.Linear(hidden_size, width, bias=False, dtype=torch.float32)
        self.label = nn.Linear(width, n_labels, dtype=torch.float32)
        nn.init.zeros_(self.state.bias)
        nn.init.zeros_(self.label.bias)

    @property
    def width(self) -> int:
        return self.label.in_features

    def forward(self, states: Tensor, asked: Asked) -> Tensor:
        """Score every subword under every question.

        states: (B, S, hidden_size), fp32.
        RETURNS: (answers, S, labels), logits.
        """
        of_states = self.state(states).index_select(0, asked.rows)
        of_questions = self.question(asked.vectors.float())[:, None]
        logits: Tensor = self.label(nn.functional.gelu(of_states + of_questions))
        return logits


def question_text(type_name: str, corpus: str | None) -> str:
    """What the backbone reads of a question."""
    return type_name if corpus is None else f"{type_name} [{corpus}]"
