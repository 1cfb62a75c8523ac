"""dtm: the map of a Python program on all the cores and machines that it is given.

    from dtm import dtm

    def op(x):
        return x + 1. / x

    def main():
        return dtm.map(op, range(1, 1000))

    dtm.start(main)

``from dtm import dtm`` and ``import dtm`` give the same functions.
"""

from dtm import dtm
from dtm.dtm import (
    AsyncResult,
    apply,
    apply_async,
    filter,
    getWorkerId,
    imap,
    imap_unordered,
    map,
    map_async,
    options,
    random,
    repeat,
    rng,
    setOptions,
    start,
    testAll,
    testAllAsync,
    testAny,
    waitAll,
    waitAny,
    waitForAll,
)
from dtm.errors import (
    CommunicationError,
    DtmError,
    InvariantError,
    OptionError,
    RemoteTraceback,
    ResultNotReadyError,
    RunStateError,
    SerializationError,
    WorkerLostError,
)
from dtm.version import VERSION

__version__ = VERSION

__all__ = [
    "AsyncResult",
    "CommunicationError",
    "DtmError",
    "InvariantError",
    "OptionError",
    "RemoteTraceback",
    "ResultNotReadyError",
    "RunStateError",
    "SerializationError",
    "WorkerLostError",
    "__version__",
    "apply",
    "apply_async",
    "dtm",
    "filter",
    "getWorkerId",
    "imap",
    "imap_unordered",
    "map",
    "map_async",
    "options",
    "random",
    "repeat",
    "rng",
    "setOptions",
    "start",
    "testAll",
    "testAllAsync",
    "testAny",
    "waitAll",
    "waitAny",
    "waitForAll",
]
