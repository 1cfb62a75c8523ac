"""What the tests of what travels have in common: ways to go, and things that go."""

from __future__ import annotations

import weakref
from typing import Any

from dtm.wire import rebuilding
from dtm.wire.pickling import dumps, loads


def there_and_back(obj: Any) -> Any:
    """Send an object and load it in the same process."""
    return loads(dumps(obj))


def as_if_new(obj: Any) -> Any:
    """Load by value, as a process does that has never seen the classes of ``obj``."""
    return as_if_new_frames(dumps(obj))


def as_if_new_frames(frames: list[Any]) -> Any:
    """Load frames as a process does that has never seen the classes in them."""
    saved, rebuilding._things = rebuilding._things, weakref.WeakValueDictionary()
    try:
        return loads(frames)
    finally:
        rebuilding._things = saved


def at_top(x: int) -> int:
    """Go by name."""
    return x + 1


class AtTop:
    """Goes by name."""

    def __init__(self, value: int = 3) -> None:
        self.value = value

    def method(self, x: int) -> int:
        """Be bound."""
        return self.value + x

    def __call__(self, x: int) -> int:
        return self.value * x
