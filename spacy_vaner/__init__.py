"""spacy_vaner: biomedical named entity recognition with a bidirectional LLaMA, inside spaCy."""

__version__ = "0.1.0"

from spacy_vaner.errors import VanerError, VanerWarning

__all__ = ["VanerError", "VanerWarning", "__version__"]
