"""Training of backbones and taggers; needs torch, transformers, tokenizers, safetensors.

Never spaCy: the folder of the package and a folder of token ids, or of rows, are all that has to be
carried to another machine. Commands: `python -m spacy_vaner.training`; as a library: `prepare` in
`spacy_vaner.training.prepare`, `pretrain` in `spacy_vaner.training.pretraining` and `train_tagger`
in `spacy_vaner.training.tagging`.
"""
