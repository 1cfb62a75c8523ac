"""``dtm doctor`` on several hosts, for real: network namespaces and real ``sshd``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests import launch, namespaces
from tests.namespaces import Network

LIMIT = 90.0
REASON = namespaces.why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        REASON is not None,
        reason=f"NOT TESTED: the doctor on several hosts by ssh, since {REASON}",
    ),
]
THREE = ("alpha slots=2", "beta", "gamma")


@pytest.fixture(scope="module")
def hosts() -> Iterator[Network]:
    with namespaces.network() as made:
        yield made


def findings(
    hosts: Network, *lines: str, status: int, ssh: str | None = None
) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Run the doctor from home; return what it found, by what and where."""
    options = ["--hosts", hosts.hosts_file(*lines), "--ssh", ssh or hosts.ssh]
    words = [sys.executable, "-m", "dtm", "doctor", *options, "--connect-timeout", "6", "--json"]
    done = launch.run(hosts.inside("home", *words), launch.environment(), LIMIT)
    assert done.returncode == status, done.stdout + done.stderr
    hosts.await_silence()
    known = json.loads(done.stdout)
    return {(each["about"], each["host"]): each for each in known["findings"]}


def test_hosts_that_work_are_found_to_work(hosts: Network) -> None:
    found = findings(hosts, *THREE, status=0)
    for host in ("alpha", "beta", "gamma"):
        assert found["entry", host]["level"] == "ok"
        assert abs(found["clock", host]["figures"]["offset"]) < 1.0
    assert found["cores", "alpha"]["figures"]["workers"] == 2
    assert "by tcp" in found["exchange", None]["found"]
    assert found["exchange", None]["figures"]["bandwidth"] > 1e6


def test_a_host_that_is_cut_off_is_named(hosts: Network) -> None:
    hosts.unplug("beta")
    try:
        found = findings(hosts, *THREE, status=1)
    finally:
        hosts.plug("beta")
    assert found["entry", "beta"]["level"] == "problem"
    assert found["entry", "alpha"]["level"] == found["entry", "gamma"]["level"] == "ok"


def test_a_login_without_a_key_is_refused_and_explained(hosts: Network) -> None:
    ssh = f"{hosts.ssh} -o PubkeyAuthentication=no"
    found = findings(hosts, "alpha", status=1, ssh=ssh)
    assert "without a password" in found["entry", "alpha"]["found"]
    assert "ssh-copy-id alpha" in found["entry", "alpha"]["advice"]


def test_an_unknown_host_key_is_not_accepted(hosts: Network) -> None:
    ssh = f"{hosts.ssh} -o UserKnownHostsFile=/dev/null -o GlobalKnownHostsFile=/dev/null"
    found = findings(hosts, "gamma", status=1, ssh=ssh)
    assert "host key is not known" in found["entry", "gamma"]["found"]
    assert "fingerprint" in found["entry", "gamma"]["advice"]
