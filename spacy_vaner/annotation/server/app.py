"""The server: a pipeline behind HTTP, with a page to look at what it finds."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes at run time.
import asyncio
import logging
import socket
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spacy_vaner import __version__
from spacy_vaner.annotation.annotator import Settings, load_pipeline, model_name, parse_corpus
from spacy_vaner.annotation.document import Document
from spacy_vaner.annotation.inputs import Limits
from spacy_vaner.annotation.server.batches import Batches, Closed, Failed, Findings, where
from spacy_vaner.annotation.server.bodies import (
    Refused,
    ServerLimits,
    read_documents,
    too_large,
    write_answer,
)
from spacy_vaner.annotation.server.contract import (
    ANSWERS,
    BODY,
    REFUSALS,
    Health,
    Question,
    Types,
    describe_bodies,
)
from spacy_vaner.errors import Messages, VanerError, VanerWarning
from spacy_vaner.gold import Ask
from spacy_vaner.settings import check_types

_log = logging.getLogger("spacy_vaner")

_PAGE = Path(__file__).parent / "page"
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    # Nothing from elsewhere, nothing inline, and in nobody's frame.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Answers hold texts, and another pipeline may be served here tomorrow.
    "cache-control": "no-store",
}
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_HEARD_OUT_BYTES, _HEARD_OUT_S = 20_000_000, 1.0
"""Of a body that is refused; it is not kept."""
_GRACE_S = 10
"""For requests that are being answered when the server is stopped."""


def make_app(batches: Batches, limits: ServerLimits) -> FastAPI:
    """The application. It closes the batches when it is shut down."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batches.close)

    app = FastAPI(
        title="spacy_vaner",
        version=__version__,
        description="Biomedical entities in texts, BioC JSON and JSONL.",
        # FastAPI's pages for these load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(_Shield)
    for error, answer in _HANDLERS.items():
        app.add_exception_handler(error, answer)
    door = _Door(limits.waiting)

    @app.post("/annotate", responses=ANSWERS, openapi_extra=BODY, response_class=Response)
    async def annotate(request: Request, question: Annotated[Question, Query()]) -> Response:
        """Find entities in the documents of the body and give them back with the entities."""
        ask = _ask(question, batches, limits)
        with door.entered():
            try:
                return await asyncio.wait_for(
                    _answer(request, question, ask, batches, limits), limits.seconds
                )
            except asyncio.TimeoutError as error:
                raise Refused(503, Messages.VE756.format(seconds=limits.seconds)) from error
            except ClientDisconnect:
                return Response(status_code=499)  # nobody reads it

    @app.get("/health", responses={503: REFUSALS[503]})
    async def health() -> Health:
        """Whether requests are answered."""
        if not batches.is_open:
            raise Closed()
        return Health(status="ok", model=batches.pipeline.name, waiting=batches.n_waiting)

    @app.get("/types")
    async def types() -> Types:
        """The types that are asked, and whether others can be."""
        served = batches.pipeline
        return Types(
            model=served.name,
            types=[*served.types],
            takes_types=served.takes_types,
            known_types=None if served.known_types is None else [*served.known_types],
        )

    for path, (name, media_type) in _FILES.items():
        app.get(path, include_in_schema=False)(_sender((_PAGE / name).read_bytes(), media_type))
    describe_bodies(app)
    return app


def _sender(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return Response(content, media_type=media_type)

    return send


class _Door:
    """Counts the requests inside, so that no more than a number of bodies are held in memory."""

    def __init__(self, n_most: int) -> None:
        self.n_most, self.n_inside = n_most, 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """RAISES Refused: 429, too many are inside."""
        if self.n_inside >= self.n_most:
            raise Refused(429, Messages.VE755.format(n_waiting=self.n_inside))
        self.n_inside += 1
        try:
            yield
        finally:
            self.n_inside -= 1


def _ask(question: Question, batches: Batches, limits: ServerLimits) -> Ask:
    """What the pipeline is asked. RAISES Refused: 422."""
    ask: Ask = {}
    try:
        if question.types:
            ask["types"] = [*check_types(question.types)]
        if question.corpus is not None:
            ask["corpus"] = parse_corpus(question.corpus)
    except VanerError as error:
        raise Refused(422, str(error)) from error
    n_types = len(ask.get("types", ()))
    if n_types > limits.types:
        raise too_large(422, "the request", n_types, "types", limits.types, "--max-types")
    if ask and not batches.pipeline.takes_types:
        problem = "the pipeline that is served has no vaner_ner, leave types and corpus out"
        raise Refused(422, Messages.VE754.format(problem=problem))
    return ask


async def _answer(
    request: Request, question: Question, ask: Ask, batches: Batches, limits: ServerLimits
) -> Response:
    body = await _read(request, limits)
    content_type = request.headers.get("content-type", "")
    # Not in the loop, in which others wait for their turn.
    documents = await asyncio.to_thread(read_documents, body, content_type, limits)
    findings = await _unless_gone(request, batches, documents, ask)
    content, media_type = await asyncio.to_thread(
        write_answer,
        findings,
        question.to,
        model=batches.pipeline.name,
        threshold=question.threshold,
    )
    return Response(content, media_type=media_type)


async def _read(request: Request, limits: ServerLimits) -> bytes:
    """The body. RAISES Refused: 413, it is longer than the limit; no more than that is kept."""
    said = request.headers.get("content-length", "")
    n_bytes = int(said) if said.isdecimal() else 0
    parts: list[bytes] = []
    if n_bytes <= limits.body_bytes:
        n_bytes = 0
        async for part in request.stream():
            n_bytes += len(part)
            if n_bytes > limits.body_bytes:
                break
            parts.append(part)
    if n_bytes > limits.body_bytes:
        raise too_large(413, "the body", n_bytes, "bytes", limits.body_bytes, "--max-body-bytes")
    return b"".join(parts)


async def _unless_gone(
    request: Request, batches: Batches, documents: list[Document], ask: Ask
) -> Findings:
    """What is found, unless whoever asked hangs up before. RAISES ClientDisconnect, Closed, Failed.

    However it ends, work that nobody waits for any longer is not done.
    """
    answer = asyncio.wrap_future(batches.submit(documents, ask))
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        both: set[asyncio.Future[Any]] = {answer, gone}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect()
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refusal(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    if status in (429, 503):
        headers = {"retry-after": "2", **(headers or {})}
    return JSONResponse({"error": message}, status, headers)


def _on_refused(_: Request, error: Any) -> Response:
    return _refusal(error.status, str(error))


def _on_closed(_: Request, error: Any) -> Response:
    return _refusal(503, Messages.VE757)


def _on_failed(_: Request, error: Any) -> Response:
    reason = type(error.error).__name__
    return _refusal(500, Messages.VE759.format(number=error.number, reason=reason))


def _on_invalid(_: Request, error: Any) -> Response:
    """A setting in the address; what was given is told by its name alone."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:])
    return _refusal(422, Messages.VE754.format(problem=f"{name}: {first['msg']}"))


def _on_http(_: Request, error: Any) -> Response:
    return _refusal(error.status_code, str(error.detail), error.headers)


_HANDLERS: dict[type[Exception], Callable[[Request, Any], Response]] = {
    Refused: _on_refused,
    Closed: _on_closed,
    Failed: _on_failed,
    RequestValidationError: _on_invalid,
    HTTPException: _on_http,
}


class _Shield:
    """Around everything: headers on every answer, and no text in the log when something fails.

    Otherwise the server would log the exception with its message, which may hold a text. A client
    that is refused while it is still sending is heard out for a while: were the connection closed
    at once, it would see a broken one instead of the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_started = is_heard_out = False

        async def receive_and_note() -> Message:
            nonlocal is_heard_out
            message = await receive()
            is_heard_out = not message.get("more_body", False)
            return message

        async def hear_out() -> None:
            n_bytes = 0
            while not is_heard_out and n_bytes < _HEARD_OUT_BYTES:
                n_bytes += len((await receive_and_note()).get("body", b""))

        async def send_with_headers(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(hear_out(), _HEARD_OUT_S)
                own = [(key.encode(), value.encode()) for key, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        try:
            await self.app(scope, receive_and_note, send_with_headers)
        except Exception as error:
            _log.error("A request failed: %s", where(error))
            if not is_started:
                reason = f"{type(error).__name__}: a fault of the server"
                await _refusal(500, reason)(scope, receive_and_note, send_with_headers)


def serve(
    model: str | None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: ServerLimits,
    gpu: int = -1,
    on_ready: Callable[[str, str], None],
) -> None:
    """Serve a pipeline until the process is told to stop (SIGINT, SIGTERM).

    model: a folder or the name of an installed pipeline; None = the tagger of the package.
    port: 0 = any that is free. gpu: number of the GPU; -1 = CPU.
    on_ready: called with the address and the name of the model when requests are taken.
    RAISES VanerError: VE750, the address cannot be had; as `load_pipeline`.
    WARNS VanerWarning: VW750, others than this machine can reach it.
    """
    name = model_name(model)
    settings = Settings(
        model=model,
        model_name=name,
        to="jsonl",
        limits=Limits(document_characters=limits.characters),
        gpu=gpu,
    )
    # A new type is told on the page; who sends what is not for the log.
    warnings.filterwarnings("ignore", message="VW041", category=VanerWarning)
    with _listen(host, port) as listener:
        if host not in _LOOPBACK:
            warnings.warn(Messages.VW750.format(host=host), VanerWarning, stacklevel=2)
        batches = Batches(lambda: load_pipeline(settings), name)
        try:
            shown = f"[{host}]" if ":" in host else host
            on_ready(f"http://{shown}:{listener.getsockname()[1]}", name)
            uvicorn.Server(server_config(make_app(batches, limits), limits)).run([listener])
        finally:
            batches.close()


def server_config(app: FastAPI, limits: ServerLimits) -> uvicorn.Config:
    """The settings of uvicorn: no log of requests, an end to connections that do nothing."""
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        # Connections, those that keep one open and those that are refused included.
        limit_concurrency=10 * limits.waiting,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise VanerError(Messages.VE750.format(host=host, port=port, reason=error)) from error
