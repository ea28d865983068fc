"""The review page as an ASGI app: three files of the page, and what it asks for as JSON."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from uar.errors import UserError
from uar.reviewing.access import HEADERS, Access
from uar.reviewing.label_database import StorageFault
from uar.reviewing.labelling import Labelling
from uar.reviewing.page_events import Refused

log = logging.getLogger(__name__)
FOLDER = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
MOST = 1 << 20  # bytes of a request
BETWEEN = 1.0  # seconds between two looks whether files are to be written


def review_app(
    labelling: Labelling, token: str | None, keep: Callable[[], object], done: Callable[[], None] | None = None
) -> Starlette:
    """`keep`: write the files of judgements; called every few seconds while labels come in. `done`: called once when nothing
    is left to judge."""
    calls: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
        "/about": lambda asked: labelling.about(),
        "/next": lambda asked: labelling.next(asked.get("who", ""), bool(asked.get("skipped"))),
        "/open": lambda asked: labelling.open(asked.get("who", ""), _whole(asked, "item")),
        "/save": lambda asked: labelling.save(asked.get("who", ""), _events(asked)),
    }
    files = [path for path in sorted(FOLDER.iterdir()) if path.suffix in KINDS]
    routes = [Route("/" if path.suffix == ".html" else f"/{path.name}", _file(path)) for path in files]
    routes += [Route(path, _answer(call), methods=["POST"]) for path, call in calls.items()]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        writing = asyncio.create_task(_watch(labelling, keep, done))
        yield
        writing.cancel()

    return Starlette(routes=routes, middleware=[Middleware(Access, token=token)], lifespan=lifespan)


async def _watch(labelling: Labelling, keep: Callable[[], object], done: Callable[[], None] | None) -> None:
    """When labels came in, files are written and agreement is computed, in no more than a tenth of the time. A fault of the
    disk is logged: the database has all of it."""
    seen, due = -1, 0.0
    while True:
        if done is not None and await run_in_threadpool(labelling.settled):
            done()
            return
        start = time.monotonic()
        if labelling.changes != seen and start >= due:
            seen = labelling.changes
            try:
                await run_in_threadpool(labelling.refresh)
                await run_in_threadpool(keep)
            except (OSError, UserError) as error:
                log.warning("The files were not written (%s); the labels are in the database", error)
            due = time.monotonic() + 10 * (time.monotonic() - start)
        await asyncio.sleep(BETWEEN)


def _file(path: Path) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        return Response(path.read_bytes(), media_type=KINDS[path.suffix], headers=HEADERS)

    return respond


def _answer(call: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST:
                return _told(413, f"a request of more than {MOST} bytes")
        try:
            asked = json.loads(body or b"{}")
            if not isinstance(asked, dict):
                raise Refused("an object of JSON is needed")
            return JSONResponse(await run_in_threadpool(call, asked), headers=HEADERS)
        except (json.JSONDecodeError, UnicodeDecodeError):
            return _told(400, "no JSON")
        except StorageFault as error:
            log.warning("%s", error)
            return _told(503, str(error))
        except UserError as error:
            return _told(409, str(error))

    return respond


def _told(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status, headers=HEADERS)


def _whole(asked: Mapping[str, Any], name: str) -> int:
    value = asked.get(name)
    if type(value) is not int:
        raise Refused(f"{name} is {value!r}; a whole number is needed")
    return value


def _events(asked: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    events = asked.get("events")
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise Refused("events must be a list of objects")
    return events
