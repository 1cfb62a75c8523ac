"""Items that end all the time, while the strip that they are in takes long."""

from time import sleep

from dtm import dtm


def nap(number: int) -> int:
    sleep(0.05)
    return number


def main() -> None:
    print(sum(dtm.options(chunksize=80).map(nap, range(160))))


dtm.start(main)
