"""Optimiser spacy-vaner.AdamW.v1: torch's AdamW for the tagger, on any device, without CuPy."""

from weakref import WeakKeyDictionary

from thinc.api import Optimizer
from thinc.optimizers import FloatOrSeq
from torch import nn

from spacy_vaner.training.config import OptimizerSettings
from spacy_vaner.training.optimizers import Optimizers


def adamw(
    learn_rate: FloatOrSeq = 0.0001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    weight_decay: float = 0.01,
    grad_clip: float = 1.0,
) -> Optimizer:
    """AdamW, for `[training.optimizer]`.

    thinc's own Adam.v1 copies every weight to CuPy and back and clips each by itself; here the
    tagger's stay where they are, and one length is clipped for all of them.

    learn_rate: a number, or a schedule such as warmup_linear.v1.
    beta1, beta2: of the averages of gradient and squared gradient.
    weight_decay: per step learn_rate * weight_decay of every matrix; biases and norms are left
        alone.
    grad_clip: longest gradient over all parameters together; 0 = not clipped.
    """
    return AdamW(
        learn_rate, beta1=beta1, beta2=beta2, weight_decay=weight_decay, grad_clip=grad_clip
    )


class AdamW(Optimizer):
    """thinc's AdamW for the weights of other components, torch's for modules."""

    def __init__(
        self,
        learn_rate: FloatOrSeq,
        *,
        beta1: float,
        beta2: float,
        weight_decay: float,
        grad_clip: float,
    ) -> None:
        super().__init__(
            learn_rate,
            beta1=beta1,
            beta2=beta2,
            L2=weight_decay,
            L2_is_weight_decay=True,
            grad_clip=grad_clip,
            use_averages=False,
        )
        self._by_module: WeakKeyDictionary[nn.Module, tuple[set[str], Optimizers]] = (
            WeakKeyDictionary()
        )

    def step_module(self, module: nn.Module) -> None:
        """Move the trainable parameters of a module by their gradients, and clear these.

        The averages start anew where other parameters of the module are trained than before.
        """
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        names, optimizers = self._by_module.get(module, (set(), None))
        if optimizers is None or names != set(trained):
            settings = OptimizerSettings(
                name="adamw",
                # The rate of a step is given with it.
                lr=1.0,
                weight_decay=self.L2,
                beta1=self.b1,
                beta2=self.b2,
                clip_norm=self.grad_clip,
            )
            optimizers = Optimizers(trained, settings)
            self._by_module[module] = set(trained), optimizers
        optimizers.step(self.learn_rate)
