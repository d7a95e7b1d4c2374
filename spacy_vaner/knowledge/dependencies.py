"""The libraries of the extra `[dbr]`, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from spacy_vaner.errors import Messages, VanerError


def library(name: str) -> ModuleType:
    """Import a module of one of the libraries.

    RAISES VanerError: VE600, it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise VanerError(Messages.VE600.format(package=package, reason=error)) from error
