"""The place of the tagger in thinc: its optimiser works on the torch parameters in place."""

import torch
from thinc.api import Adam

from spacy_vaner.backbone.building import build_tagger
from spacy_vaner.backbone.settings import SmallLlama
from spacy_vaner.model import TaggerShim


def test_an_update_changes_the_parameters_where_they_are():
    settings = SmallLlama(
        hidden_size=16, n_layers=1, n_heads=2, intermediate_size=32, vocab_size=300
    )
    shim = TaggerShim()
    shim.tagger = build_tagger(settings, None, texts=["one two three"])
    optimizer = Adam(0.01)
    before = {
        name: (parameter.data_ptr(), parameter.detach().clone())
        for name, parameter in shim.tagger.named_parameters()
    }
    for _ in range(2):
        for parameter in shim.tagger.parameters():
            parameter.grad = torch.ones_like(parameter)
        shim.finish_update(optimizer)
    for name, parameter in shim.tagger.named_parameters():
        place, value = before[name]
        # New tensors would keep the old ones alive: memory grew by a model every few steps.
        assert parameter.data_ptr() == place, name
        assert not torch.equal(parameter, value), name
        assert not parameter.grad.any(), name
