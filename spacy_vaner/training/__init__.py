"""Pretraining of backbones on plain text; needs torch, transformers, tokenizers, safetensors.

Never spaCy: the folder of the package and a folder of token ids are all that has to be carried to
another machine. Commands: `python -m spacy_vaner.training`; as a library: `prepare` in
`spacy_vaner.training.prepare` and `pretrain` in `spacy_vaner.training.loop`.
"""
