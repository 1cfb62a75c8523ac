"""TLS for the links of a run that leave the machine.

Every worker presents the certificate of the run and accepts no other, so at both
ends whoever does not hold its key is out before our own handshake begins.  That
is made inside of the encrypted channel all the same: it tells ranks and versions,
and proves the secret once more.

TLS runs between two buffers in memory, not on the socket: what goes to the kernel
are then pieces of 256 KiB and not of 16, and what comes is read in one go.
Measured on loopback, 1.4 GB/s; an ``SSLSocket`` moved 0.8.

Threads: a stream may write in one thread and read in another at the same time, but the
library's TLS object is made for one (before Python 3.13 nothing guards it, and its calls
release the interpreter).  So, once there is a stream, ``_lock`` is held wherever ``_tls``,
``_came`` or ``_leaves`` is used.

Rejected: TLS 1.2 for old libraries.  Every Python that dtm runs on has 1.3, and
it needs no list of ciphers from us.
"""

from __future__ import annotations

import hmac
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from threading import RLock
from typing import cast

from dtm.comm.tcp.channel import Channel
from dtm.comm.tcp.credentials import Credentials
from dtm.errors import CommunicationError, StrangerError

_RAW = 1 << 18
_LONGEST_GREETING = 1 << 14  # bytes of TLS before whoever calls has shown the certificate


class Contexts:
    """The TLS settings of a run, for either end of a connection; made once for a process."""

    def __init__(self, credentials: Credentials) -> None:
        if credentials.certificate is None or credentials.key is None:
            raise CommunicationError("TLS needs credentials with a certificate")
        text = credentials.certificate.decode("ascii")
        self._certificate = ssl.PEM_cert_to_DER_cert(text)
        with secret_file(credentials.certificate + credentials.key) as path:
            self._caller = _context(ssl.PROTOCOL_TLS_CLIENT, text, path)
            self._acceptor = _context(ssl.PROTOCOL_TLS_SERVER, text, path)

    def channel(self, connection: socket.socket, *, called: bool) -> TlsChannel:
        """Return the channel over a connection, which was accepted if ``called``."""
        return TlsChannel(connection, self._acceptor if called else self._caller, called)

    def check(self, channel: TlsChannel) -> None:
        """Check that the peer presented this very certificate.

        Raises:
            StrangerError: it did not.
        """
        if not hmac.compare_digest(channel.certificate or b"", self._certificate):
            raise StrangerError("whoever is there presents another certificate")


@contextmanager
def secret_file(data: bytes) -> Iterator[str]:
    """Give the path of a file with these bytes, for the block: in memory, else of mode 0600."""
    with ExitStack() as stack:
        path = ""
        if hasattr(os, "memfd_create"):
            with suppress(OSError):
                memory = stack.enter_context(FileIO(os.memfd_create("dtm"), "w"))
                memory.write(data)
                path = f"/proc/self/fd/{memory.fileno()}"
        if not os.access(path, os.R_OK):
            import tempfile

            file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="dtm-", buffering=0))
            file.write(data)
            path = file.name
        yield path


def _context(protocol: int, certificate: str, path: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the certificate itself is compared, not a name in it
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=certificate)
    context.load_cert_chain(path)
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # nobody resumes a session
    return context


class TlsChannel(Channel):
    """A channel that encrypts.

    Attributes:
        greeting: how many bytes came before TLS's own handshake was over.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, called: bool) -> None:
        super().__init__(connection)
        self._lock = RLock()
        self._came, self._leaves = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._leaves, server_side=called)
        self._read_into = cast("Callable[[int, memoryview], int]", self._tls.read)
        self._raw = memoryview(bytearray(_RAW))
        self.greeting = 0

    def greet(self) -> None:
        """Go on with the handshake of TLS; return when it is done.

        Raises:
            BlockingIOError: the peer has to say something first.
            OSError: it failed.
            StrangerError: the peer has not got the certificate of this run.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._push()
                self._hear()
            except ssl.SSLCertVerificationError:
                self._push()  # the alert, so that the peer does not wait
                raise StrangerError("whoever is there presents another certificate") from None
            else:
                self._push()
                return

    @property
    def certificate(self) -> bytes | None:
        """The certificate of the peer."""
        return self._tls.getpeercert(binary_form=True)

    def _push(self) -> None:
        """Write what TLS itself sends, which is little enough for the kernel to take it at once."""
        if self._leaves.pending:
            self._socket.sendall(self._leaves.read())

    def _hear(self) -> None:
        size = self._read(self._raw)
        self.greeting += size
        if size == 0 or self.greeting > _LONGEST_GREETING:
            raise ConnectionResetError("the peer broke off")
        self._came.write(self._raw[:size])

    def _protect(self, piece: memoryview) -> Sequence[bytes | memoryview]:
        with self._lock:
            self._tls.write(piece)
            return (self._leaves.read(),)

    def recv_into(self, target: memoryview) -> int:
        """Decrypt into ``target`` as much as there is."""
        while not (done := self._decrypt(target)):
            size = self._read(self._raw)
            if size == 0:
                return 0
            with self._lock:
                self._came.write(self._raw[:size])
        return done

    def _holds(self) -> bool:
        with self._lock:
            return self._came.pending > 0 or self._tls.pending() > 0

    def _decrypt(self, target: memoryview) -> int:
        done = 0
        try:
            while done < len(target) and (self._holds() or not done):
                with self._lock:
                    done += self._read_into(len(target) - done, target[done:])
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            if not done:
                raise ConnectionAbortedError(f"TLS broke off: {error.reason}") from error
        return done
