"""A server on loopback in this process, for tests that talk to it over a real connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from spacy.language import Language

from spacy_vaner.annotation.server.app import make_app, server_config
from spacy_vaner.annotation.server.batches import Batches
from spacy_vaner.annotation.server.bodies import ServerLimits

MODEL = "en_test-1.0/0123456789ab"


@contextmanager
def serving(
    load: Callable[[], Language], limits: ServerLimits, *, batch_characters: int = 20_000
) -> Iterator[str]:
    """Serve a pipeline; yields the address."""
    batches = Batches(load, MODEL, batch_characters=batch_characters)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        server = uvicorn.Server(server_config(make_app(batches, limits), limits))
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
            batches.close()
