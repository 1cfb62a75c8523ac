"""Several hosts on one machine: network namespaces, each with an address and an sshd of its own.

    home, alpha, beta, gamma --- veth pairs --- a bridge in a namespace of its own

Programs run in ``home``, and reach the others by ``ssh``, with keys made for the occasion
and host keys known beforehand, so nothing of ssh's checks is turned off.  The hosts
share the file system and the process table, so what is left of a run on a host
can be seen from outside.  Everything is removed at the end.

Rejected: containers.  They need more than this does, and nothing here needs more.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests import launch

HOSTS = ("alpha", "beta", "gamma")
_PREFIX = "10.213.77"
_PREFIX_6 = "fd77:213"
_LIMIT = 30.0
_SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
_IP = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def why_not() -> str | None:
    """Say why there can be no such hosts here, None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for name, path in (("sshd (openssh-server)", _SSHD), ("ip (iproute2)", _IP)):
        if path is None:
            return f"there is no {name}"
    if shutil.which("ssh") is None:
        return "there is no ssh"
    probe = f"dtm-probe-{os.getpid()}"
    made = subprocess.run(
        [str(_IP), "netns", "add", probe], capture_output=True, text=True, timeout=_LIMIT
    )
    if made.returncode:
        return f"no network namespace can be made: {made.stderr.strip()}"
    _ip("netns", "del", probe)
    return None


def _ip(*arguments: str) -> str:
    done = subprocess.run([str(_IP), *arguments], capture_output=True, text=True, timeout=_LIMIT)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout


@dataclass
class Network:
    """The hosts, while they are there."""

    directory: Path
    tag: str
    servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    cuts: list[tuple[str, str, str]] = field(default_factory=list)
    unplugged: set[str] = field(default_factory=set)

    @property
    def ssh(self) -> str:
        """What replaces ``ssh``: it with the keys of these hosts."""
        return f"ssh -F {self.directory}/config"

    def space(self, host: str) -> str:
        """Return the name of a host's namespace."""
        return f"{self.tag}-{host}"

    def address(self, host: str) -> str:
        """Return the address of a host."""
        return f"{_PREFIX}.{1 + ('home', *HOSTS).index(host)}"

    def address_6(self, host: str) -> str:
        """Return its other address."""
        return f"{_PREFIX_6}::{1 + ('home', *HOSTS).index(host)}"

    def inside(self, host: str, *command: str) -> list[str]:
        """Return the command that runs another on a host."""
        return [str(_IP), "netns", "exec", self.space(host), *command]

    def hosts_file(self, *lines: str) -> str:
        """Write a file of hosts."""
        path = self.directory / "hosts.txt"
        path.write_text("\n".join((*lines, "")))
        return str(path)

    def processes(self, host: str) -> list[int]:
        """Return what runs on a host besides its ssh server.

        A session of the server that has nothing to run any more may outlive a cut
        connection for long; that is the server's business.
        """
        return [pid for pid in self._all(host) if not _is_session(pid)]

    def _all(self, host: str) -> list[int]:
        listed = map(int, _ip("netns", "pids", self.space(host)).split())
        server = self.servers.get(host)
        return [pid for pid in listed if server is None or pid != server.pid]

    def unplug(self, host: str) -> None:
        """Cut a host off, without a word to anybody."""
        self.unplugged.add(host)
        _ip("-n", self.space("switch"), "link", "set", f"v-{host}", "down")

    def plug(self, host: str) -> None:
        """Connect it again, with all others, and wait until that is so.

        A link that was down needs a moment, and who asked for an address meanwhile in
        vain is told for some seconds more that there is no route to it.
        """
        for cut in [cut for cut in self.cuts if cut[0] == host]:
            self.cuts.remove(cut)
            _ip("-n", self.space(host), "route", "del", *cut[1:])
        _ip("-n", self.space("switch"), "link", "set", f"v-{host}", "up")
        if host in self.unplugged:
            self.unplugged.remove(host)
            for other in HOSTS if host == "home" else (host,):
                _await_server(self, other)

    def separate(self, one: str, other: str, how: str) -> None:
        """Cut the way between two hosts, ``unreachable`` or ``blackhole``; others have theirs."""
        route = (how, f"{self.address(other)}/32")
        _ip("-n", self.space(one), "route", "add", *route)
        self.cuts.append((one, *route))

    def crash(self, host: str) -> None:
        """Let a host go away: nothing of it runs any more, and nothing says goodbye."""
        self.unplug(host)
        for pid in self._all(host):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def await_silence(self, hosts: tuple[str, ...] = HOSTS, timeout: float = 20.0) -> None:
        """Wait until nothing runs on the hosts but their servers."""
        deadline = time.monotonic() + timeout
        while left := {host: pids for host in hosts if (pids := self.processes(host))}:
            if time.monotonic() > deadline:
                names = {
                    host: [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids]
                    for host, pids in left.items()
                }
                raise AssertionError(f"left after {timeout} s: {names}")
            time.sleep(0.05)


def _is_session(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sshd: ")
    except OSError:  # it has ended
        return False


@contextmanager
def network() -> Iterator[Network]:
    """Make the hosts; remove them afterwards, whatever has happened."""
    with tempfile.TemporaryDirectory(prefix="t-net-", ignore_cleanup_errors=True) as name:
        made = Network(Path(name), f"dtm{os.getpid()}")
        try:
            _join_all(made)
            _make_keys(made)
            for host in HOSTS:
                made.servers[host] = _serve(made, host)
            for host in HOSTS:
                _await_server(made, host)
            yield made
        finally:
            _remove(made)


def _join_all(made: Network) -> None:
    switch = made.space("switch")
    _ip("netns", "add", switch)
    _ip("-n", switch, "link", "add", "br0", "type", "bridge")
    _ip("-n", switch, "link", "set", "br0", "up")
    for host in ("home", *HOSTS):
        space = made.space(host)
        _ip("netns", "add", space)
        _ip(
            "-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", f"v-{host}",
            "netns", switch,
        )  # fmt: skip
        _ip("-n", switch, "link", "set", f"v-{host}", "master", "br0", "up")
        _ip("-n", space, "addr", "add", f"{made.address(host)}/24", "dev", "eth0")
        _ip("-n", space, "addr", "add", f"{made.address_6(host)}/64", "dev", "eth0", "nodad")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")


def _make_keys(made: Network) -> None:
    known = []
    for name in ("user", *HOSTS):
        path = made.directory / name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
        subprocess.run(command, check=True, timeout=_LIMIT)
        if name != "user":
            known.append(f"{name} {path.with_suffix('.pub').read_text()}")
    (made.directory / "known_hosts").write_text("".join(known))
    (made.directory / "config").write_text(
        "".join(
            f"Host {host}\n  HostName {made.address(host)}\n  HostKeyAlias {host}\n"
            f"Host {host}-six\n  HostName {made.address_6(host)}\n  HostKeyAlias {host}\n"
            for host in HOSTS
        )
        + f"Host *\n  IdentityFile {made.directory}/user\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {made.directory}/known_hosts\n  StrictHostKeyChecking yes\n"
        "  User root\n  LogLevel ERROR\n"
    )


def _serve(made: Network, host: str) -> subprocess.Popen[bytes]:
    os.makedirs("/run/sshd", exist_ok=True)
    settings = made.directory / f"{host}.sshd"
    settings.write_text(
        f"Port 22\nListenAddress {made.address(host)}\nListenAddress {made.address_6(host)}\n"
        f"HostKey {made.directory}/{host}\n"
        f"AuthorizedKeysFile {made.directory}/user.pub\nPidFile none\nStrictModes no\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUsePAM no\n"
    )
    log = (made.directory / f"{host}.log").open("wb")
    with log:
        return subprocess.Popen(
            made.inside(host, str(_SSHD), "-D", "-e", "-f", str(settings)),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def _await_server(made: Network, host: str) -> None:
    deadline = time.monotonic() + _LIMIT
    command = made.inside("home", "ssh", "-F", f"{made.directory}/config", host, "true")
    while True:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT, env=launch.environment()
        )
        if not done.returncode:
            return
        log = (made.directory / f"{host}.log").read_text()
        assert time.monotonic() < deadline, (done.stderr, log)
        time.sleep(0.05)


def _remove(made: Network) -> None:
    spaces = [made.space(host) for host in ("home", *HOSTS, "switch")]
    there = _ip("netns", "list")
    for space in spaces:
        if space in there:
            for pid in map(int, _ip("netns", "pids", space).split()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    for server in made.servers.values():
        server.wait(_LIMIT)
    for space in spaces:
        if space in there:
            _ip("netns", "del", space)
