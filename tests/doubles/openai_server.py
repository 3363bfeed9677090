"""A server in the tests' own process that speaks the part of OpenAI's API that teachers and judges use, and vLLM's adapters."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Body = dict[str, Any]
Response = tuple[int, dict[str, str], bytes]
JSON = {"Content-Type": "application/json"}


def fails(status: int, text: str = "no", **headers: str) -> Response:
    return status, {**JSON, **headers}, json.dumps({"error": {"message": text}}).encode()


def writes(text: str | None, chat: bool = False, usage: tuple[int, int] | None = (10, 5), finish: str = "stop") -> Response:
    """A completion, with its usage if it is told."""
    choice: Body = {"index": 0, "finish_reason": finish} | ({"message": {"role": "assistant", "content": text}} if chat else {"text": text})
    told = {"usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}} if usage else {}
    return 200, JSON, json.dumps({"choices": [choice], **told}).encode()


class OpenAIServer:
    """Answers as `respond` says, and notes what it is asked.

    Attributes:
        models: What it serves.
        adapters: By name, the folder that each was loaded from.
        takes_adapters: Whether it loads them while it runs; `refuses` is what it says if it does not load one.
    """

    def __init__(self, key: str = "") -> None:
        self.respond: Callable[[Body], Response] = lambda body: writes("Ada plays the harp.", "messages" in body)
        self.key = key
        self.models = ["tiny"]
        self.adapters: dict[str, str] = {}
        self.takes_adapters = True
        self.refuses = ""
        self.forgets = False
        self.lists = True
        self.requests: list[Body] = []
        self.paths: list[str] = []
        self.loads: list[Body] = []
        self.under_way = self.most_under_way = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not self._has_key():
                    return
                self._answer(server.list_models() if self.path == "/v1/models" and server.lists else fails(404, "Not Found"))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
                if not self._has_key():
                    return
                if self.path == "/v1/load_lora_adapter" and server.takes_adapters:
                    self._answer(server.load(body))
                elif self.path in ("/v1/completions", "/v1/chat/completions"):
                    self._answer(server.complete(self.path, body))
                else:
                    self._answer(fails(404, "Not Found"))

            def _has_key(self) -> bool:
                given = self.headers["Authorization"]
                if server.key and given != f"Bearer {server.key}":
                    self._answer(fails(401, f"Incorrect API key provided: {given}"))
                    return False
                return True

            def _answer(self, response: Response) -> None:
                status, headers, content = response
                try:
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(content)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:  # the client did not wait
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 64

        self.http = Listener(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def complete(self, path: str, body: Body) -> Response:
        with self._lock:
            self.requests.append(body)
            self.paths.append(path)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if body["model"] not in (*self.models, *self.adapters):
                return fails(404, f"The model `{body['model']}` does not exist.")
            return self.respond(body)
        finally:
            with self._lock:
                self.under_way -= 1

    def load(self, body: Body) -> Response:
        """As vLLM does: a name can be loaded once."""
        if "lora_name" not in body:
            return fails(400, "lora_name: Field required")
        self.loads.append(body)
        if self.refuses:
            return fails(400, self.refuses)
        if body["lora_name"] in self.adapters:
            return fails(400, f"The lora adapter '{body['lora_name']}' has already been loaded.")
        if not (Path(body["lora_path"]) / "adapter_model.safetensors").exists():
            return fails(404, f"Loading lora {body['lora_name']} failed: no adapter found for {body['lora_path']}")
        if not self.forgets:
            self.adapters[body["lora_name"]] = body["lora_path"]
        return 200, {"Content-Type": "text/plain"}, b"Success: LoRA adapter added successfully."

    def list_models(self) -> Response:
        names = [*self.models, *self.adapters]
        return 200, JSON, json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]}).encode()


@contextmanager
def serving(key: str = "") -> Iterator[OpenAIServer]:
    server = OpenAIServer(key)
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
