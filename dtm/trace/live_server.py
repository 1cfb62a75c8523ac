"""Serves the live view over HTTP, to whoever on this machine has the token.

``/`` is the page, ``/state`` what it shows, as JSON, ``/metrics`` the same for Prometheus.  Nothing
can be changed over it: there is GET, and HEAD.

Who may ask: it listens at 127.0.0.1 only, and a request must bring the token, as ``?token=`` or as
``Authorization: Bearer``.  The ``Host`` must be a name of this machine's loopback, or a page of
somebody else's, whose name is made to point to 127.0.0.1 (DNS rebinding), could ask with a token
that it has got hold of.  The page itself runs no script but its own, is shown in no frame, and
sends no address on; names from the program are put into it as text.

What can go wrong: the port is taken: said on stderr, and the run goes on without the view.
Somebody opens many connections, or says nothing on one: there are ``MOST_AT_ONCE`` of them, for
``PATIENCE_SECONDS``.

Threads: a thread accepts, each request has one of its own; all are daemons, and none touches dtm's
locks but that of the view.

Rejected: a framework.  Three addresses need none, and the root would import it at each start.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pkgutil import get_data
from time import perf_counter
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from dtm.trace.history import History

ADDRESS = "127.0.0.1"
MOST_AT_ONCE = 32
PATIENCE_SECONDS = 5.0
_POLL_SECONDS = 0.1  # that the accepting thread takes to see the end
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_LACKING = "/metrics needs prometheus_client: pip install 'dtm[live]'"
_POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class View(Protocol):
    """What is served."""

    def read(self, look: Callable[[History], Any]) -> Any:
        """Return what somebody finds in the history."""


def opened(view: View, port: int, host: str) -> Server | None:
    """Return the server of a view, None if it cannot be; say where it is, or why it is not.

    Args:
        view: what it shows.
        port: 0 for any.
        host: the name of this machine, for people.
    """
    try:
        server = Server(view, port)
    except OSError as error:
        sys.stderr.write(
            f"dtm: there is no live view, and the run goes on: port {port} of {ADDRESS}: "
            f"{error.strerror}; --live without a number takes a port that is free\n"
        )
        return None
    if server.metrics is None:
        sys.stderr.write(f"dtm: {_LACKING}\n")
    sys.stderr.write(f"dtm: live view, on {host}: {server.url}\n")
    sys.stderr.flush()
    return server


class Server(ThreadingHTTPServer):
    """The server of one view.

    Attributes:
        url: of the page, with the token.
        metrics: makes the answer for Prometheus; None if its package is not installed.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, view: View, port: int) -> None:
        self.view = view
        self.token = secrets.token_urlsafe(24)
        self.metrics: Callable[[History], tuple[bytes, str]] | None = None
        self._free = threading.BoundedSemaphore(MOST_AT_ONCE)
        super().__init__((ADDRESS, port), _Request)
        try:
            from dtm.trace.metrics import exposition
        except ImportError:
            pass
        else:
            self.metrics = exposition
        self.url = f"http://{ADDRESS}:{self.server_address[1]}/?token={self.token}"

    def server_bind(self) -> None:
        """Bind, and ask no name server for this machine's name, as the library would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, int(self.server_address[1])

    def start(self) -> None:
        """Begin to serve."""
        threading.Thread(
            target=self.serve_forever, args=(_POLL_SECONDS,), name="dtm-live-server", daemon=True
        ).start()

    def stop(self) -> None:
        """End."""
        self.shutdown()
        self.server_close()

    def let_go(self) -> None:
        """(In a child that a task has forked) close the port, which is the parent's."""
        self.socket.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, unless there are too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        threading.Thread(
            target=self.process_request_thread, args=(request, client_address),
            name="dtm-live-request", daemon=True,
        ).start()  # fmt: skip

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break; the other side has gone, or may ask again."""

    def allows(self, given: str | None) -> bool:
        """Whether a token is right."""
        return given is not None and hmac.compare_digest(
            given.encode(errors="replace"), self.token.encode()
        )


class _Request(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = PATIENCE_SECONDS
    server_version = "dtm"
    sys_version = ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def parse_request(self) -> bool:
        """Read the request; refuse what is not allowed, before anything else is looked at."""
        if not super().parse_request():
            return False
        if self.command not in {"GET", "HEAD"}:
            allowed = {"Allow": "GET, HEAD"}
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", headers=allowed)
            return False
        if not self._names_this_machine():
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "this is not the host that was asked for")
            return False
        try:
            parts = urlsplit(self.path)
            self._query = parse_qs(parts.query, max_num_fields=10)
        except ValueError:
            self._refuse(HTTPStatus.BAD_REQUEST, "that is no address")
            return False
        self._place = parts.path
        if not self.server.allows(self._token()):
            self._refuse(
                HTTPStatus.UNAUTHORIZED, "the token is missing or wrong: dtm has printed it",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
            return False
        return True

    def _names_this_machine(self) -> bool:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1:
            return False
        name, colon, port = hosts[0].strip().lower().rpartition(":")
        if not colon or port.endswith("]"):
            name, port = hosts[0].strip().lower(), "80"
        return name in _LOOPBACK and port.isdigit()

    def _token(self) -> str | None:
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return given.strip()
        tokens = self._query.get("token", [])
        return tokens[0] if len(tokens) == 1 else None

    def do_GET(self) -> None:
        """Answer."""
        find = {"/": self._page, "/state": self._state, "/metrics": self._metrics}.get(self._place)
        if find is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there are /, /state and /metrics")
            return
        find()

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        page = get_data("dtm.trace", "live.html") or b""
        policy = _POLICY.format(nonce)
        self._answer(
            page.replace(b"NONCE", nonce.encode()), "text/html; charset=utf-8",
            headers={"Content-Security-Policy": policy},
        )  # fmt: skip

    def _state(self) -> None:
        since, first = (self._number(name) for name in ("since", "first"))
        seen = self.server.view.read(lambda history: history.seen(since, first, perf_counter()))
        self._answer(json.dumps(seen).encode(), "application/json")

    def _number(self, name: str) -> int:
        text = self._query.get(name, ["0"])[0]
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0

    def _metrics(self) -> None:
        if self.server.metrics is None:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, _LACKING)
            return
        self._answer(*self.server.view.read(self.server.metrics))

    def _answer(
        self,
        body: bytes,
        kind: str,
        status: int = HTTPStatus.OK,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(
        self, status: HTTPStatus, said: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._answer(f"{said}\n".encode(), "text/plain; charset=utf-8", status, headers)

    def log_message(self, *_: Any) -> None:
        """Say nothing: stderr is the program's."""
