"""`python -m spacy vaner serve`: a pipeline behind HTTP, with a page."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from typing import Annotated

import typer
from wasabi import msg

from spacy_vaner.errors import Messages, VanerError


def serve_command(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Folder or name of a trained pipeline; default: the tagger of the package",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option("--host", help="Address to listen on; by default for this machine alone"),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, help="0 = any that is free")
    ] = 8000,
    gpu_id: Annotated[int, typer.Option("--gpu-id", "-g", help="GPU ID, or -1 for the CPU")] = -1,
    max_body_bytes: Annotated[
        int, typer.Option("--max-body-bytes", min=1, help="Of a request; more: 413")
    ] = 1_000_000,
    max_characters: Annotated[
        int, typer.Option("--max-characters", min=1, help="Of a document; more: 413")
    ] = 200_000,
    max_documents: Annotated[
        int, typer.Option("--max-documents", min=1, help="In a request; more: 422")
    ] = 100,
    max_types: Annotated[
        int, typer.Option("--max-types", min=1, help="Asked in a request; more: 422")
    ] = 20,
    max_waiting: Annotated[
        int, typer.Option("--max-waiting", min=1, help="Requests at a time; more: 429")
    ] = 64,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", min=0.1, help="For an answer; more: 503")
    ] = 60.0,
) -> None:
    """Serve a pipeline to this machine: a page at /, annotation at POST /annotate.

    Ends with Ctrl-C. No text is logged, and none is kept.

    Example: python -m spacy vaner serve
    """
    for package in ("fastapi", "uvicorn"):
        if find_spec(package) is None:
            raise VanerError(Messages.VE713.format(what="serve", package=package, extra="serve"))
    from spacy_vaner.annotation.server.app import serve
    from spacy_vaner.annotation.server.bodies import ServerLimits

    limits = ServerLimits(
        body_bytes=max_body_bytes,
        documents=max_documents,
        characters=max_characters,
        types=max_types,
        waiting=max_waiting,
        seconds=max_seconds,
    )

    def tell(address: str, name: str) -> None:
        # At once, for whoever waits for the line; print, since wasabi breaks long lines.
        print(f"Serving {name} at {address} (stop with Ctrl-C)", flush=True)

    # Ctrl-C comes back from the server as an exception only where the process does not ignore it.
    with suppress(KeyboardInterrupt):
        serve(model, host=host, port=port, limits=limits, gpu=gpu_id, on_ready=tell)
    msg.good("Stopped")
