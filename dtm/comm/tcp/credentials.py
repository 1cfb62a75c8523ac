"""Credentials, which make a process a member of a run: name, secret, perhaps a certificate.

Whoever starts a run makes fresh credentials and hands them to each worker by a
way that others cannot read: an inherited pipe, the standard input of ``ssh``, or
a file of mode 0600.  They never stand in an argument or in an environment, which
other users of a machine, and tasks, can read; and they do not show in a ``repr``,
for that is what ends up in tracebacks.

All workers of a run share one certificate, made for this run and signed by
itself.  Both ends of a connection present it and accept no other, so it says the
same as the secret does: this is a member.  Who it was made for and until when it
is valid mean nothing, and are filled in so that no library objects.

Rejected: a certificate for each worker and an authority of the run.  A member of
a run can do anything in it, so there is nobody to tell apart; and it would take
a message more before a worker can join.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from typing import IO

from dtm.errors import CommunicationError

_FORMAT = 2
_LONGEST = 1 << 16  # bytes that are read before it is given up
_RUN = 16
_SECRET = 32


@dataclass(frozen=True)
class Credentials:
    """The secrets of a run, which only its members know.

    Attributes:
        run: names the run, 16 bytes; no secret.
        secret: 32 random bytes.
        certificate: the run's certificate as PEM, if its links are to be encrypted.
        key: the private key of the certificate, as PEM.
    """

    run: bytes
    secret: bytes = field(repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.run) != _RUN or len(self.secret) != _SECRET:
            sizes = f"{len(self.run)} and {len(self.secret)}"
            raise CommunicationError(
                f"the name of a run has {_RUN} bytes and its secret {_SECRET}, not {sizes}"
            )
        if (self.certificate is None) != (self.key is None):
            raise CommunicationError("a certificate is of no use without its key")

    @classmethod
    def fresh(cls, *, tls: bool = False) -> Credentials:
        """Make the credentials of a new run; with ``tls``, a certificate too.

        Raises:
            CommunicationError: ``tls`` needs the ``cryptography`` package, and it is not there.
        """
        certificate, key = make_certificate() if tls else (None, None)
        return cls(os.urandom(_RUN), os.urandom(_SECRET), certificate, key)

    @property
    def tls(self) -> bool:
        """Whether the links of this run are encrypted."""
        return self.certificate is not None

    # Bytes

    def to_bytes(self) -> bytes:
        """Return the credentials as one line of text, for a pipe or a file."""
        pem = [None if part is None else part.decode() for part in (self.certificate, self.key)]
        line = json.dumps([_FORMAT, self.run.hex(), self.secret.hex(), *pem])
        return line.encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Credentials:
        """Read what ``to_bytes`` returned."""
        try:
            version, run, secret, *pem = json.loads(data)
            if version != _FORMAT:
                raise ValueError(version)
            certificate, key = (None if part is None else part.encode() for part in pem)
            names = bytes.fromhex(run), bytes.fromhex(secret)
        except (ValueError, TypeError, AttributeError):  # not chained: it would quote the secret
            raise CommunicationError(
                "these are no credentials of this version of dtm, or only a part of them"
            ) from None
        return cls(*names, certificate, key)

    @classmethod
    def read(cls, stream: IO[bytes]) -> Credentials:
        """Read credentials from a pipe, and not a byte more."""
        return cls.from_bytes(stream.readline(_LONGEST))

    # Files

    def to_file(self, path: str) -> None:
        """Write the credentials to a new file that nobody else can read."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise CommunicationError(
                f"cannot write the credentials to {path}: {error.strerror}"
            ) from error
        with open(descriptor, "wb") as file:
            file.write(self.to_bytes())

    @classmethod
    def from_file(cls, path: str) -> Credentials:
        """Read credentials from a file that belongs to this user and that nobody else can read."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise CommunicationError(
                f"cannot read the credentials in {path}: {error.strerror}"
            ) from error
        try:
            _check_private(descriptor, path)
            with open(descriptor, "rb", closefd=False) as file:
                return cls.read(file)
        finally:
            os.close(descriptor)


def _check_private(descriptor: int, path: str) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise CommunicationError(f"{path} is no file; credentials are read from files")
    if status.st_uid != os.geteuid():
        raise CommunicationError(f"{path} belongs to somebody else: no secret to trust")
    if status.st_mode & 0o077:
        raise CommunicationError(
            f"others can read the secret in {path}: chmod 600 {path}, and start a new run"
        )


def make_certificate() -> tuple[bytes, bytes]:
    """Return a new certificate signed by itself, and its key, both as PEM."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise CommunicationError(
            "links between machines are encrypted, and making the certificate for that needs the "
            "cryptography package: pip install 'dtm[tls]' where the run is started"
        ) from error
    from datetime import datetime

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dtm run")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(1970, 1, 2))  # noqa: DTZ001 - clocks of clusters may be wrong
        .not_valid_after(datetime(9999, 12, 31, 23, 59, 59))  # noqa: DTZ001
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
