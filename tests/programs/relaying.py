"""The checks of ``interface.py`` with results going home in hops, as in runs of many workers."""

from dtm.core import relay

relay.MANY = 2

from interface import main  # noqa: E402 - after the change

from dtm import dtm  # noqa: E402

if __name__ == "__main__":
    dtm.start(main)
