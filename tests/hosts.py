"""Hosts that are this machine under other names, behind a program that stands for ``ssh``.

It takes ``ssh``'s arguments, writes down whom it was asked for, and does with the
command what the host's name says: runs it, in a directory of its own and behind a
greeting as login shells have, or fails as hosts do.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests import launch

_STAND_IN = r"""#!/bin/sh
printf '%s\n' "$*" >> LOG
while [ "$1" != "--" ]; do shift; done
host=$2
shift 2
case $host in
    down*) echo "ssh: connect to host $host port 22: No route to host" >&2; exit 255 ;;
    hanging*) exec sleep 600 ;;
    old*) echo "dtm-agent dtm 0.9 on Python 2.7"; exec sleep 600 ;;
    mute*) echo "Have a nice day."; exit 0 ;;
    bare*) exec unshare -m sh -c "mount -t tmpfs none \"\$BARE\" && cd / && $*" ;;
    asking*) printf "The sum of 2 and 3? "; exec sleep 600 ;;
    prompt*) printf "$host> " ;;
    chatty*) while sleep 0.02; do printf "To all on $host\\n"; done 2>/dev/null & ;;
esac
cd /
[ "${host#prompt}" = "$host" ] && echo "Welcome to $host."
SSH_CONNECTION="127.0.0.1 5 127.0.0.1 22" exec sh -c "$*"
"""


class Hosts:
    """A file of hosts, and what stands for ``ssh``."""

    def __init__(self, directory: Path, *lines: str) -> None:
        self.file = directory / "hosts.txt"
        self.file.write_text("\n".join((*lines, "")))
        self.log = directory / "calls.txt"
        self.stand_in = directory / "stand-in for ssh"
        self.stand_in.write_text(_STAND_IN.replace("LOG", f"'{self.log}'"))
        self.stand_in.chmod(0o755)

    def command(self, *arguments: object, options: tuple[str, ...] = ()) -> list[str]:
        """Return the command that runs a program on the hosts."""
        ssh = f"'{self.stand_in}'"
        return [
            sys.executable, "-m", "dtm", "--hosts", str(self.file), "--ssh", ssh, *options,
            *map(str, arguments),
        ]  # fmt: skip

    def run(
        self,
        *arguments: object,
        options: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        timeout: float = launch.DEFAULT_TIMEOUT,
        cwd: Path = launch.ROOT,
    ) -> launch.Completed:
        """Run a program on the hosts to its end."""
        command = self.command(*arguments, options=options)
        return launch.run(command, launch.environment(env), timeout, cwd=cwd)
