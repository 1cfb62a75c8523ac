"""A kernel of Jupyter, cell by cell, and what each cell shows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from textwrap import dedent
from typing import Any

from jupyter_client.manager import KernelManager

from tests.launch import environment

LIMIT = 60.0


@dataclass
class Shown:
    """What a cell shows.

    Attributes:
        text: what was printed.
        value: the text of its value, if it has one.
        error: the name of the exception that ended it, if any did.
        elsewhere: what was printed meanwhile in other cells.
    """

    text: str = ""
    value: str | None = None
    error: str | None = None
    elsewhere: list[str] = field(default_factory=list)


class Kernel:
    """A kernel that runs."""

    def __init__(self, manager: KernelManager, client: Any) -> None:
        self.manager = manager
        self._client = client

    def cell(self, source: str, interrupt_after: str | None = None) -> Shown:
        """Run a cell to its end; interrupt it when it has printed a text."""
        request = self._client.execute(dedent(source))
        shown = Shown()
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            try:
                message = self._client.get_iopub_msg(timeout=1.0)
            except Empty:
                continue
            content, kind = message["content"], message["msg_type"]
            if message["parent_header"].get("msg_id") != request:
                if kind == "stream":
                    shown.elsewhere.append(content["text"])
                continue
            if kind == "stream":
                shown.text += content["text"]
                if interrupt_after is not None and interrupt_after in shown.text:
                    interrupt_after = None
                    self.manager.interrupt_kernel()
            elif kind == "execute_result":
                shown.value = content["data"]["text/plain"]
            elif kind == "error":
                shown.error = content["ename"]
            elif kind == "status" and content["execution_state"] == "idle":
                return shown
        message = f"a cell has not ended within {LIMIT} s; it has shown {shown}"
        raise AssertionError(message)

    def value(self, source: str) -> str:
        """Run a cell that must end well; return the text of its value."""
        shown = self.cell(source)
        assert shown.error is None, shown
        return shown.value or ""


@contextmanager
def kernel(directory: Path) -> Iterator[Kernel]:
    """Start a kernel, with what it makes in a directory; afterwards its workers must be gone."""
    manager = KernelManager(kernel_name="python3", transport="ipc", ip=str(directory / "ipc"))
    manager.start_kernel(env=environment({"TMPDIR": str(directory)}), cwd=str(directory))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=LIMIT)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def await_end(processes: list[int], timeout: float = 10.0) -> None:
    """Wait until none of these processes is left."""
    deadline = time.monotonic() + timeout
    while left := [process for process in processes if Path(f"/proc/{process}").exists()]:
        assert time.monotonic() < deadline, f"{left} are left after {timeout} s, {os.getpid()}"
        time.sleep(0.05)
