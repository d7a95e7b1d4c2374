"""A checkpoint as the training scripts of VANER and LS-LLaMA leave it, on a tiny LLaMA.

Made with transformers and peft, and so is the reference of its logits: nothing of ours is in it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spacy_vaner.backbone.pretrained import quiet_transformers


def save_checkpoint(
    backbone: Path, folder: Path, *, head: str = "classifier", n_labels: int = 3, **lora: Any
) -> Any:
    """Put random LoRA and a random head on a LLaMA and save them. RETURNS: the PEFT model.

    head: "classifier", as in the authors' class, or "score", as in transformers' own.
    """
    import peft
    import transformers

    with quiet_transformers():  # it says that the head is new
        model: Any = transformers.LlamaForTokenClassification.from_pretrained(
            str(backbone), num_labels=n_labels, torch_dtype=torch.float32
        )
    if head == "classifier":
        model.classifier = model.score
        del model.score
    options: dict[str, Any] = {"r": 12, "lora_alpha": 32, "lora_dropout": 0.1, **lora}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        tuned = peft.get_peft_model(
            model, peft.LoraConfig(task_type=peft.TaskType.TOKEN_CLS, **options)
        )
    generator = torch.Generator().manual_seed(7)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            # As the scripts keep them: in bf16.
            noise = 0.2 * torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(noise.bfloat16().float())
    tuned.save_pretrained(folder)
    return tuned.eval()


def reference_logits(tuned: Any, input_ids: Tensor) -> Tensor:
    """Transformers' layers one after another under a mask of zeros: (1, S, labels).

    What the authors' class computes for a batch of one, where nothing is padded.
    """
    model = tuned.get_base_model()
    size = input_ids.shape[1]
    positions = torch.arange(size)[None]
    with torch.no_grad():
        states = model.model.embed_tokens(input_ids)
        rotary = model.model.rotary_emb(states, positions)
        for layer in model.model.layers:
            output = layer(
                states,
                attention_mask=torch.zeros(1, 1, size, size),
                position_ids=positions,
                position_embeddings=rotary,
            )
            states = output[0] if isinstance(output, tuple) else output
        head = model.classifier if hasattr(model, "classifier") else model.score
        logits: Tensor = head(model.model.norm(states))
    return logits
