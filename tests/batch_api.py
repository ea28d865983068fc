"""A real HTTP server on 127.0.0.1 with OpenAI's batch interface. How slow it is and what it leaves out, a test chooses."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llm_server import Messages
from serving_thread import listening, serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CODES = {"expired": "batch_expired", "cancelled": "batch_cancelled"}


@dataclass
class BatchAPI:
    """`answer`: text of a chat's reply, None where the call fails. `looks`: how often a batch is looked at before it has
    ended. `ends(n)`: status that the n-th batch ends with; of an expired one `answered` calls are. `refuses(calls)`: code of
    the error of a batch that is refused whole. `largest`: bytes of a file that is taken. `fault(method, path)`: status of an
    answer in place of the right one; the work is done nevertheless where it is above 500.

    `files`, `batches`: by name; `asked`: of every call in a batch that was begun, its custom_id and body.
    """

    url: str
    answer: Callable[[Messages], str | None] = lambda messages: "My selection:[]"
    looks: int = 0
    ends: Callable[[int], str] = lambda number: "completed"
    answered: int = 1
    refuses: Callable[[int], str | None] = lambda calls: None
    largest: int = 10**9
    fault: Callable[[str, str], int | None] = lambda method, path: None
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def calls(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    def begin(self, body: dict[str, Any]) -> dict[str, Any]:
        batch = {"id": f"batch_{len(self.batches)}", "status": "validating", "looks": 0, **body}
        calls = self.calls(batch)
        batch["refused"] = self.refuses(len(calls))
        self.batches[batch["id"]] = batch
        if not batch["refused"]:
            self.asked += [(call["custom_id"], call["body"]) for call in calls]
        return batch

    def look(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["looks"] += 1
        if batch["looks"] <= self.looks:
            return batch | {"status": "in_progress"}
        if batch["refused"]:
            return batch | {"status": "failed", "errors": {"data": [{"code": batch["refused"], "message": "no"}]}}
        if batch["status"] == "validating":
            self._end(batch)
        return batch

    def _end(self, batch: dict[str, Any]) -> None:
        status, calls = self.ends(int(batch["id"].partition("_")[2])), self.calls(batch)
        done = calls if status == "completed" else calls[: self.answered]
        answers = {call["custom_id"]: self.answer(call["body"]["messages"]) for call in done}
        good = [_line(name, 200, _completion(text)) for name, text in reversed(answers.items()) if text is not None]
        told = {"error": {"message": "the prompt is too long", "type": "invalid_request_error"}}
        bad = [_line(name, 400, told) for name, text in answers.items() if text is None]
        late = {"code": CODES.get(status), "message": "This request could not be executed in time."}
        bad += [{"custom_id": c["custom_id"], "response": None, "error": late} for c in calls if c["custom_id"] not in answers]
        batch |= {"status": status, "request_counts": {"total": len(calls), "completed": len(good), "failed": len(bad)}}
        for kind, rows in (("output_file_id", good), ("error_file_id", bad)):
            if rows:
                batch[kind] = f"{batch['id']}_{kind}"
                self.files[batch[kind]] = "\n".join(map(json.dumps, rows)).encode()


def _line(name: str, status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"r{name}", "custom_id": name, "response": {"status_code": status, "body": body}, "error": None}


def _completion(text: str) -> dict[str, Any]:
    usage = {"prompt_tokens": 1_000, "completion_tokens": 5}
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": usage}


def _form(body: bytes, kind: str) -> list[bytes]:
    """The values of a multipart form, in their order."""
    boundary = b"--" + kind.partition("boundary=")[2].strip('"').encode()
    return [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in body.split(boundary)[1:-1]]


@contextmanager
def serve_batches() -> Iterator[BatchAPI]:
    """Serve in a thread for as long as the block runs."""
    with listening() as (bound, address):
        api = BatchAPI(f"{address}/v1")
        with serving(_app(api), bound):
            yield api


def _app(api: BatchAPI) -> Starlette:
    async def files(request: Request) -> Response:
        purpose, content = _form(await request.body(), request.headers["content-type"])
        assert purpose == b"batch"
        if len(content) > api.largest:
            return JSONResponse({"error": {"message": "Payload too large"}}, 413)
        name = f"file_{len(api.files)}"
        api.files[name] = content
        return JSONResponse({"id": name})

    async def content(request: Request) -> Response:
        return Response(api.files[request.path_params["name"]])

    async def begin(request: Request) -> Response:
        return JSONResponse(api.begin(await request.json()))

    async def listed(request: Request) -> Response:
        return JSONResponse({"data": list(reversed(api.batches.values()))})

    async def look(request: Request) -> Response:
        batch = api.batches.get(request.path_params["name"])
        return JSONResponse({"error": "no such batch"}, 404) if batch is None else JSONResponse(api.look(batch))

    def guarded(handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def respond(request: Request) -> Response:
            api.headers.append(dict(request.headers))
            status = api.fault(request.method, request.url.path)
            if status and status <= 500:
                return Response("it broke", status)
            response = await handler(request)
            return Response("it broke after that", status) if status else response

        return respond

    return Starlette(
        routes=[
            Route("/v1/files", guarded(files), methods=["POST"]),
            Route("/v1/files/{name}/content", guarded(content), methods=["GET"]),
            Route("/v1/batches", guarded(begin), methods=["POST"]),
            Route("/v1/batches", guarded(listed), methods=["GET"]),
            Route("/v1/batches/{name}", guarded(look), methods=["GET"]),
        ]
    )
