"""Credentials: fresh, private, and whole or not at all."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

import pytest

from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.tls import Contexts, secret_file
from dtm.errors import CommunicationError

if TYPE_CHECKING:
    from pathlib import Path


def test_each_run_has_its_own_name_and_secret() -> None:
    first, second = Credentials.fresh(), Credentials.fresh()
    assert len(first.secret) * 8 == 256
    assert first.secret != second.secret
    assert first.run != second.run
    assert not first.tls


def test_no_secret_shows_in_a_repr() -> None:
    credentials = Credentials.fresh(tls=True)
    assert credentials.key is not None
    shown = f"{credentials!r} {credentials}"
    for secret in (credentials.secret, credentials.key):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
    assert "secret" not in shown


@pytest.mark.parametrize("tls", [False, True])
def test_they_pass_through_a_pipe_and_leave_what_follows(tls: bool) -> None:
    credentials = Credentials.fresh(tls=tls)
    pipe = io.BytesIO(credentials.to_bytes() + b"the program's own input\n")
    assert Credentials.read(pipe) == credentials
    assert pipe.read() == b"the program's own input\n"
    assert Credentials.from_bytes(credentials.to_bytes()) == credentials


@pytest.mark.parametrize("tls", [False, True])
def test_a_part_of_them_is_an_error_that_does_not_quote_it(tls: bool) -> None:
    credentials = Credentials.fresh(tls=tls)
    whole = credentials.to_bytes()
    for length in range(0, len(whole) - 1, 7):
        with pytest.raises(CommunicationError, match="credentials") as caught:
            Credentials.from_bytes(whole[:length])
        assert credentials.secret.hex()[:8] not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"7",
        b"{}",
        b"[]",
        b"[1, 2, 3, 4, 5]",
        b"\xff\n",
        b'[2, "zz", "zz", null, null]',
        b'[2, "00", "00", null]',
        b'[2, "00", "00", 7, 7]',
        b'[1, "%s", "%s", null, null]' % (b"00" * 16, b"00" * 32),
    ],
)
def test_what_are_no_credentials_is_an_error(line: bytes) -> None:
    with pytest.raises(CommunicationError, match="no credentials of this version"):
        Credentials.from_bytes(line)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'[2, "00", "00", null, null]', "the name of a run has"),
        (b'[2, "%s", "%s", "c", null]' % (b"00" * 16, b"00" * 32), "without its key"),
    ],
)
def test_damaged_ones_are_an_error(line: bytes, problem: str) -> None:
    with pytest.raises(CommunicationError, match=problem):
        Credentials.from_bytes(line)


def test_reading_gives_up_on_what_has_no_end() -> None:
    with pytest.raises(CommunicationError, match="no credentials"):
        Credentials.read(io.BytesIO(b"x\n" * (1 << 20)))


def test_a_file_of_them_is_private_and_new(tmp_path: Path) -> None:
    path = str(tmp_path / "secret")
    credentials = Credentials.fresh()
    old = os.umask(0)
    try:
        credentials.to_file(path)
    finally:
        os.umask(old)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert Credentials.from_file(path) == credentials
    with pytest.raises(CommunicationError, match="cannot write the credentials"):
        credentials.to_file(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_file_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    path = str(tmp_path / "secret")
    Credentials.fresh().to_file(path)
    os.chmod(path, mode)
    with pytest.raises(CommunicationError, match=f"chmod 600 {path}"):
        Credentials.from_file(path)


def test_what_is_no_file_of_this_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "secret")
    with pytest.raises(CommunicationError, match="cannot read the credentials"):
        Credentials.from_file(path)
    with pytest.raises(CommunicationError, match="is no file"):
        Credentials.from_file(str(tmp_path))
    Credentials.fresh().to_file(path)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(CommunicationError, match="belongs to somebody else"):
        Credentials.from_file(path)


def test_the_need_for_the_package_that_makes_certificates_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(CommunicationError, match=r"pip install 'dtm\[tls\]'"):
        Credentials.fresh(tls=True)


def test_tls_without_a_certificate_is_an_error() -> None:
    with pytest.raises(CommunicationError, match="needs credentials with a certificate"):
        Contexts(Credentials.fresh())
    with pytest.raises(CommunicationError, match="without its key"):
        Credentials(b"r" * 16, b"s" * 32, b"certificate")


@pytest.mark.parametrize("memory", [True, False])
def test_a_secret_file_is_gone_after_its_use(
    memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with secret_file(b"key") as path:
        with open(path, "rb") as file:
            assert file.read() == b"key"
        assert os.stat(path).st_mode & 0o077 == 0 or memory
    assert not os.path.exists(path)
    assert os.listdir(tmp_path) == []
