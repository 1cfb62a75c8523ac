"""Another name for :mod:`dtm.integrations.asyncio`, dtm in coroutines."""

from dtm.integrations.asyncio import apply, as_completed, imap, map, result, starmap  # noqa: A004

__all__ = ["apply", "as_completed", "imap", "map", "result", "starmap"]
