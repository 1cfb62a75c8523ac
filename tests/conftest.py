"""What holds for all tests."""

import signal

# A shell that starts the tests in the background has them ignore SIGINT, and whatever they
# start inherits that; a handler is not inherited, so programs under test take Ctrl-C again.
signal.signal(signal.SIGINT, signal.default_int_handler)
