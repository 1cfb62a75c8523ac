"""Maps that show how far they are."""

import sys
import time

from dtm import OptionError, dtm


def slow(x):
    time.sleep(0.005)
    return x


def main():
    how = sys.argv[1]
    if how == "without":
        sys.modules["tqdm.auto"] = None
        try:
            dtm.options(progress=True).map(slow, range(3))
        except OptionError as error:
            print(error)
        return
    doors = {"option": dtm.options(progress=True), "off": dtm.options(progress=False)}
    print(sum(doors.get(how, dtm).map(slow, range(40))))


dtm.start(main)
