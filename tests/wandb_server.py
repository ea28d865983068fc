"""As much of a W&B server as `wandb sync` needs, and what it was told."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class WandbServer:
    """`asked`: (name of the GraphQL operation, its variables) in order; `history`: rows of the runs; `files`: names."""

    url: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def inputs(self, operation: str) -> list[dict[str, Any]]:
        """The variables of each call of an operation."""
        return [variables.get("input", variables) for name, variables in self.asked if name == operation]


@contextmanager
def serve_wandb() -> Iterator[WandbServer]:
    """Serve in a thread for as long as the block runs."""
    state = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _reply(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> bytes:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

        def do_PUT(self) -> None:
            self._body()
            state.files.append(self.path.removeprefix("/upload/"))
            self._reply({})

        def do_POST(self) -> None:
            body = self._body()
            if self.path == "/graphql":
                told = json.loads(body)
                named = re.search(r"(?:query|mutation)\s+(\w+)", told["query"])
                operation, variables = named[1] if named else "", told.get("variables") or {}
                state.asked.append((operation, variables))
                self._reply({"data": _answer(state.url, operation, variables)})
                return
            if self.path.endswith("/file_stream"):
                lines = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
                state.history += [json.loads(line) for line in lines]
            self._reply({"exitcode": None, "limits": {}})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def _answer(url: str, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Artefacts are told to be there already, under an id of their own content, so that nothing of them is uploaded."""
    if operation == "UpsertBucket":
        project = {"id": "p", "name": variables.get("project"), "entity": {"id": "e", "name": "me"}}
        bucket = {
            "id": "r",
            "name": variables["name"],
            "displayName": "",
            "config": "{}",
            "sweepName": None,
            "project": project,
        }
        return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0}, "inserted": True}}
    if operation == "CreateArtifact":
        told = {"id": variables["input"]["digest"], "state": "COMMITTED"}
        return {"createArtifact": {"artifact": {**told, "artifactSequence": {"id": "s", "latestArtifact": None}}}}
    if operation == "UseArtifact":
        return {"useArtifact": {"artifact": {"id": "a"}}}
    if operation == "CreateRunFiles":
        files = [{"name": name, "uploadUrl": f"{url}/upload/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
    return {}
