"""The ASGI application: TensorFlow Serving's REST interface, health, readiness and Prometheus metrics."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from l2p_tf.server.batching import Batcher, QueueFullError
from l2p_tf.server.log import log
from l2p_tf.server.model import DEFAULT, BadRequestError, Model
from l2p_tf.server.options import ServeOptions
from l2p_tf.serving import SEEDED

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SEED_NUMBERS = 2


class Metrics:
    """Metrics, in a separate registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        how: dict[str, Any] = {"registry": self.registry, "namespace": "l2p_tf"}
        self.requests = Counter("requests", "Requests by path and status.", ["path", "status"], **how)
        self.seconds = Histogram("request_seconds", "Seconds from request to answer.", ["path"], **how)
        self.batch = Histogram("batch_images", "Images answered in one pass.", buckets=_BATCHES, **how)
        self.images = Counter("images", "Images answered.", **how)
        self.waiting = Gauge("waiting_images", "Images that wait.", **how)
        dropped = Gauge("log_lines_dropped", "Lines of the log that nobody took in time.", **how)
        dropped.set_function(lambda: log.dropped)


class Server:
    """Serves an export through TensorFlow Serving's REST interface.

    Args:
      model: the export.
      name: name of the model in URLs.
      options: limits.
    """

    def __init__(self, model: Model, name: str, options: ServeOptions) -> None:
        self.model, self.name, self.options, self.metrics = model, name, options, Metrics()
        self.ready = False
        self.batchers = {
            signature: Batcher(
                functools.partial(model.ask, signature), options.batch_images, options.batch_wait_ms / 1000,
                options.queue_images, self.metrics.batch.observe,
            )
            for signature in model.signatures
            if signature != SEEDED
        }  # fmt: skip
        self.metrics.waiting.set_function(lambda: sum(batcher.images for batcher in self.batchers.values()))

    @property
    def app(self) -> ASGIApp:
        """The application."""
        routes = [Route("/healthz", self._health), Route("/readyz", self._readiness), Route("/metrics", self._metrics)]
        for version in ("", "/versions/1"):
            base = f"/v1/models/{self.name}{version}"
            routes += [
                Route(base, self._status), Route(f"{base}/metadata", self._metadata),
                Route(f"{base}:predict", self._predict, methods=["POST"]),
            ]  # fmt: skip
        handlers = {404: functools.partial(_told, self.name), 405: functools.partial(_told, self.name)}
        app = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)
        return _Logged(app, self.metrics)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        del app
        for batcher in self.batchers.values():
            batcher.open()
        await asyncio.to_thread(self.model.warm_up, self.options.batch_images)
        # Parsing a request makes thousands of lists, which triggers garbage collections. Freezing keeps them from
        # scanning everything that TensorFlow and the model hold, which stalls requests for 200 ms.
        gc.collect()
        gc.freeze()
        self.ready = True
        yield
        self.ready = False
        gc.unfreeze()
        for batcher in self.batchers.values():
            await batcher.close()

    async def _health(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readiness(self, request: Request) -> Response:
        return PlainTextResponse("ready\n" if self.ready else "not ready\n", 200 if self.ready else 503)

    async def _metrics(self, request: Request) -> Response:
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _status(self, request: Request) -> Response:
        status = {"error_code": "OK", "error_message": ""}
        return JSONResponse({"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": status}]})

    async def _metadata(self, request: Request) -> Response:
        signatures = {name: _signature(function) for name, function in self.model.signatures.items()}
        return JSONResponse(
            {
                "model_spec": {"name": self.name, "signature_name": "", "version": "1"},
                "metadata": {"signature_def": {"signature_def": signatures}, "l2p_tf": self.model.card},
            }
        )

    async def _predict(self, request: Request) -> Response:
        try:
            body = await _body(request, int(self.options.body_mb * 1e6))
            if body is None:
                return _error(413, f"the body should be of at most {self.options.body_mb:g} MB")
            wanted = _parsed(body)
            images = self.model.images_of(wanted.signature, wanted.images)
            request.scope["images"] = len(images)
            answering = self._answer(wanted, images)
            answer = await asyncio.wait_for(answering, self.options.timeout_s)
        except BadRequestError as error:
            return _error(400, str(error))
        except QueueFullError:
            return _error(503, "too many images wait; try again later", {"Retry-After": "1"})
        except TimeoutError:
            return _error(504, f"there was no answer within {self.options.timeout_s:g} seconds")
        self.metrics.images.inc(len(images))
        return Response(_encoded(answer, wanted.by_row), media_type="application/json")

    async def _answer(self, wanted: _Wanted, images: np.ndarray) -> dict[str, np.ndarray]:
        if wanted.signature != SEEDED:
            return await self.batchers[wanted.signature].ask(images)
        seed = np.asarray(wanted.seed, np.int64)
        return await asyncio.to_thread(self.model.ask, SEEDED, images, seed=seed)


class _Wanted(msgspec.Struct):
    signature: str
    images: Any
    by_row: bool
    seed: list[int] | None = None


class _Body(msgspec.Struct):
    signature_name: str = DEFAULT
    instances: list[Any] | None = None
    inputs: Any = None


def _parsed(body: bytes) -> _Wanted:
    """Parses a request in row (`instances`) or column (`inputs`) format; raises BadRequestError."""
    try:
        given = msgspec.json.decode(body, type=_Body)
    except msgspec.DecodeError as error:
        raise BadRequestError(f"the body should be JSON with instances or inputs: {error}") from error
    if (given.instances is None) == (given.inputs is None):
        raise BadRequestError("the body should have either instances or inputs")
    signature = given.signature_name or DEFAULT
    if given.instances is not None:
        rows = given.instances
        named = bool(rows) and all(isinstance(row, dict) for row in rows)
        if named and any(set(row) != {"images"} for row in rows):
            raise BadRequestError("each of the instances should have images alone; a seed goes with inputs")
        wanted = _Wanted(signature, [row["images"] for row in rows] if named else rows, True)
    else:
        columns = given.inputs if isinstance(given.inputs, dict) else {"images": given.inputs}
        if not {"images"} <= set(columns) <= {"images", "seed"}:
            raise BadRequestError(f"inputs should be images, and with {SEEDED} seed, not {', '.join(columns)}")
        wanted = _Wanted(signature, columns["images"], False, columns.get("seed"))
    seed = wanted.seed
    good = (
        isinstance(seed, list) and len(seed) == _SEED_NUMBERS and all(type(n) is int and abs(n) < 2**63 for n in seed)
    )
    if (signature == SEEDED and not good) or (signature != SEEDED and seed is not None):
        raise BadRequestError(f"seed should be {_SEED_NUMBERS} whole numbers, with {SEEDED} alone")
    return wanted


def _encoded(answer: dict[str, np.ndarray], by_row: bool) -> bytes:
    columns = {name: values.tolist() for name, values in answer.items()}
    if not by_row:
        return msgspec.json.encode({"outputs": columns})
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return msgspec.json.encode({"predictions": rows})


def _signature(function: Any) -> dict[str, Any]:
    def told(specs: dict[str, Any]) -> dict[str, Any]:
        return {
            name: {
                "dtype": f"DT_{spec.dtype.name.upper().replace('FLOAT32', 'FLOAT')}",
                "tensor_shape": {
                    "dim": [{"size": str(-1 if n is None else n), "name": ""} for n in spec.shape],
                    "unknown_rank": False,
                },
                "name": name,
            }
            for name, spec in specs.items()
        }

    inputs = told(function.structured_input_signature[1])
    return {
        "inputs": inputs, "outputs": told(function.structured_outputs), "method_name": "tensorflow/serving/predict",
    }  # fmt: skip


async def _body(request: Request, most: int) -> bytes | None:
    """Reads the body of a request; returns None, without reading on, if it is too large."""
    if int(request.headers.get("content-length", 0)) > most:
        return None
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > most:
            return None
    return b"".join(parts)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers)


async def _told(name: str, request: Request, error: Exception) -> Response:
    status = int(getattr(error, "status_code", 404))
    return _error(status, f"{request.method} {request.url.path} is not served; /v1/models/{name}:predict (POST) is")


class _Logged:
    """Counts every request, and logs a line of JSON to standard error for each except probes."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            seconds, path = time.perf_counter() - begun, scope["path"]
            # Unknown paths are grouped, because clients could otherwise create any number of series.
            kind = path if status not in (404, 405) else "other"
            self.metrics.requests.labels(kind, str(status)).inc()
            self.metrics.seconds.labels(kind).observe(seconds)
            if path not in ("/healthz", "/readyz", "/metrics"):
                client = (scope.get("client") or ("",))[0]
                log("request", method=scope["method"], path=path, status=status, ms=round(1000 * seconds, 2),
                    images=scope.get("images", 0), client=client)  # fmt: skip
