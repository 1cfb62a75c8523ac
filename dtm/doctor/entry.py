"""Entry to hosts: whether a command can be run there, and if not, why not.

Judges by what ``ssh`` and shells say; the words are those of OpenSSH.

Pure; any thread.
"""

from __future__ import annotations

from dtm.doctor.conversation import Answer
from dtm.doctor.finding import Finding, fine, problem
from dtm.doctor.software import too_old
from dtm.doctor.visit import NO_DIRECTORY, Visit

_SSH_FAILED = 255
_NOT_FOUND = (126, 127)  # by a shell, by env
_REASONS = (
    (
        "permission denied",
        "the login is refused without a password",
        (
            "give the host your public key (ssh-copy-id {host}) and load the private one "
            "(ssh-agent, ssh-add), or name the user by user="
        ),
    ),
    (
        "host key verification failed",
        "its host key is not known, or not the one known",
        (
            "log in once by hand, ssh {host}, and compare the fingerprint with the one that the "
            "host's keeper gives you; the check itself should stay"
        ),
    ),
    (
        "remote host identification has changed",
        "its host key is not the one known",
        (
            "ask the host's keeper whether it was installed anew; only then remove the old key "
            "with ssh-keygen -R {host}"
        ),
    ),
    (
        "could not resolve",
        "there is no host of that name",
        "correct the name, or give its address",
    ),
    (
        "connection refused",
        "no ssh server listens there",
        "have sshd started, or name its port by port=",
    ),
    (
        "no route to host",
        "the network has no way to it",
        "ask for the name that hosts of this cluster use among themselves",
    ),
    (
        "timed out",
        "nobody answers there",
        "look whether it is up, and whether a firewall lets ssh through",
    ),
)


def judge(visit: Visit, by: str) -> list[Finding]:
    """Judge whether a host can be entered; ``by`` is how it was tried, as in "ssh"."""
    if visit.machine is None:
        return [_failed(visit, by)]
    greeting = visit.noise.splitlines()[0] if visit.noise else ""
    also = f"; its login prints {greeting!r} first, which dtm passes over" if greeting else ""
    return [fine("entry", f"{by} works, {visit.round_trip * 1e3:.2f} ms there and back{also}")]


def _failed(visit: Visit, by: str) -> Finding:
    answer, name = visit.answer, visit.host.name
    if visit.python is not None:
        return _mute(visit)
    if answer.late:
        return problem(
            "entry",
            f"{by} did not come to an end in time",
            f"try `{by} {name} true` by hand; a larger --connect-timeout gives it longer",
        )
    if answer.status == NO_DIRECTORY:
        return problem(
            "entry",
            "the directory of this program is not there",
            "start in a directory that all hosts share",
        )
    if answer.status in _NOT_FOUND and visit.host.python is not None:
        return problem(
            "entry",
            f"there is no {visit.host.python} there",
            "correct python= in the file of hosts",
        )
    if answer.status in _NOT_FOUND:
        return problem(
            "entry",
            f"this Python is not there: {_last(answer)}",
            "install it at the same path, share it, or name another by python=",
        )
    if answer.status in (None, _SSH_FAILED):
        return _refused(answer, name, by)
    said = _last(answer) or "nothing was said"
    return problem("entry", f"{by} ended with status {answer.status}: {said}", f"try `{by} {name}`")


def _refused(answer: Answer, name: str, by: str) -> Finding:
    if answer.status is None:
        return problem(
            "entry",
            f"{by} cannot be run: {answer.error}",
            "install it (OpenSSH's client), or name what is there instead by --ssh",
        )
    lower = answer.error.lower()
    for sign, found, advice in _REASONS:
        if sign in lower:
            return problem("entry", f"{found} ({_last(answer)})", advice.format(host=name))
    return problem(
        "entry", f"{by} says: {_last(answer) or 'nothing'}", f"try `{by} {name} true` by hand"
    )


def _mute(visit: Visit) -> Finding:
    """Judge a host where Python started, but told nothing more."""
    assert visit.python is not None
    if visit.python < (3, 11):
        return too_old(visit.python, visit.host.python or "that Python")
    why = "in time" if visit.answer.late else f"({_last(visit.answer)})"
    return problem("entry", f"Python started there, but told nothing {why}", "try it by hand")


def _last(answer: Answer) -> str:
    """Return the last line of what was said on standard error."""
    return answer.error.splitlines()[-1].strip() if answer.error else ""
