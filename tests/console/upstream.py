"""A small HTTP server that answers `GET .../models` well or badly: the first part of the path says how."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class ListingServer(ThreadingHTTPServer):
    """Listens on a free port; `seen` has the headers of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Listing)
        self.seen: list[dict[str, str]] = []

    def base_url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/v1"


class Listing(BaseHTTPRequestHandler):
    """`/200/v1/models` lists two models, `/401/...` refuses; `garbled`, `silent` and `dripping` do as they say."""

    server: ListingServer

    def do_GET(self) -> None:
        self.server.seen.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        behaviour = self.path.split("/")[1]
        if behaviour == "silent":
            time.sleep(1)
        elif behaviour == "dripping":
            self._drip()
        elif behaviour == "garbled":
            self._answer(200, b"<html>a portal</html>")
        elif behaviour == "302":
            self._answer(302, b"", location="https://elsewhere.example/v1/models")
        elif behaviour == "200":
            models = [{"id": "small-upstream", "object": "model"}, {"id": "other", "object": "model"}]
            self._answer(200, json.dumps({"object": "list", "data": models}).encode())
        else:
            # Real providers repeat a part of the API key in such messages.
            self._answer(int(behaviour), f"refused: {self.headers.get('authorization')}".encode())

    def _answer(self, status: int, body: bytes, location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("location", location)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "100")
        self.end_headers()
        for _ in range(40):
            try:
                self.wfile.write(b" ")
            except OSError:
                return
            time.sleep(0.05)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Silent: the tests look at answers, not at logs."""


@contextmanager
def running_listing() -> Iterator[ListingServer]:
    """The server, answering while the block runs."""
    server = ListingServer()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
