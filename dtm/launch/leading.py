"""A run that this program leads by itself, and that others join by hand.

Nobody has started other workers, so the program says on stderr how to join, and
puts the secret where only its user can read it.  The file goes when the program
ends; if it is killed the file stays, and opens nothing any more.

Called in the main thread, before there is a run.
"""

from __future__ import annotations

import atexit
import shlex
import sys

from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.manager import TcpManager
from dtm.launch.root import LOOPBACK
from dtm.launch.secret import SecretFile
from dtm.launch.settings import JOIN_SLOTS, Settings


def lead(chosen: Settings) -> TcpManager:
    """Return the manager of rank 0; says on stderr how to join.

    Raises:
        CommunicationError: nothing can be listened at, or the secret cannot be written.
    """
    tls = chosen.bind is not None if chosen.tls is None else chosen.tls
    credentials = Credentials.fresh(tls=tls)
    free = JOIN_SLOTS if chosen.join_slots is None else chosen.join_slots
    secret = SecretFile(chosen.secret_file, credentials)
    secret.write()
    atexit.register(secret.remove)
    root = TcpManager.lead(
        1 + free, credentials, bind=chosen.bind or LOOPBACK, ports=chosen.ports, tls=tls
    )
    root.alters_threads = True
    sys.stderr.write(secret.how_to_join(root.address, free, shlex.join(sys.argv)))
    return root
