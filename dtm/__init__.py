"""dtm: the map of a Python program on all the cores and machines that it is given.

    from dtm import dtm

    def op(x):
        return x + 1. / x

    def main():
        return dtm.map(op, range(1, 1000))

    dtm.start(main)

``from dtm import dtm`` and ``import dtm`` give the same functions.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from dtm import dtm
from dtm.dtm import (
    AsyncResult,
    Handle,
    apply,
    apply_async,
    filter,
    getWorkerId,
    imap,
    imap_unordered,
    is_root,
    local,
    map,
    map_async,
    options,
    random,
    repeat,
    rng,
    run,
    setOptions,
    share,
    size,
    starmap,
    starmap_async,
    start,
    stop,
    testAll,
    testAllAsync,
    testAny,
    waitAll,
    waitAny,
    waitForAll,
)
from dtm.errors import (
    CallCancelledError,
    CommunicationError,
    DtmError,
    InitializerError,
    InvariantError,
    ItemTimeoutError,
    OptionError,
    RemoteTraceback,
    ResultNotReadyError,
    RunStateError,
    SerializationError,
    WorkerLostError,
)
from dtm.version import VERSION

if _TYPE_CHECKING:
    from dtm.dtm import Executor, Pool, asyncio

__version__ = VERSION

__all__ = [
    "AsyncResult",
    "CallCancelledError",
    "CommunicationError",
    "DtmError",
    "Executor",
    "Handle",
    "InitializerError",
    "InvariantError",
    "ItemTimeoutError",
    "OptionError",
    "Pool",
    "RemoteTraceback",
    "ResultNotReadyError",
    "RunStateError",
    "SerializationError",
    "WorkerLostError",
    "__version__",
    "apply",
    "apply_async",
    "asyncio",
    "dtm",
    "filter",
    "getWorkerId",
    "imap",
    "imap_unordered",
    "is_root",
    "local",
    "map",
    "map_async",
    "options",
    "random",
    "repeat",
    "rng",
    "run",
    "setOptions",
    "share",
    "size",
    "starmap",
    "starmap_async",
    "start",
    "stop",
    "testAll",
    "testAllAsync",
    "testAny",
    "waitAll",
    "waitAny",
    "waitForAll",
]


def __getattr__(name: str) -> _Any:
    if name in ("Executor", "Pool", "asyncio"):
        return getattr(dtm, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
