"""Dictionaries that values are compressed with: fetched from the server once, and kept."""

from __future__ import annotations

from layercache.codecs.dictionaries import Dictionaries
from layercache.errors import DecodeError
from layercache_redis.calls import Calls
from layercache_redis.wire import Steps

__all__ = ["KnownDictionaries"]


class KnownDictionaries:
    """The dictionaries of one cache.

    Args:
        dictionaries: of the stage that takes some; None where none does.

    Attributes:
        is_known: which one is in use.
        lost: those that the server does not have any more.
    """

    def __init__(self, calls: Calls, dictionaries: Dictionaries | None) -> None:
        self._calls, self._names, self._dictionaries = calls, calls.names, dictionaries
        self._news = 0  # how often another was said to be in use
        self.is_known = dictionaries is None
        self.lost: set[int] = set()

    def learn_in_use(self) -> Steps[None]:
        """Ask which dictionary new values are compressed with, once, and again when the log says that it changed."""
        if self.is_known:
            return
        news = self._news
        (reply,) = yield [("GET", self._names.dictionary())]
        id = self._calls.string(reply)
        in_use = int(id) if id is not None and id.isdigit() and len(id) <= 10 else None
        if in_use is not None:
            yield from self.learn(in_use)
        if self._dictionaries is not None:
            self._dictionaries.use(None if in_use in self.lost else in_use)
        self.is_known = news == self._news

    def learn(self, id: int) -> Steps[None]:
        """Fetch a dictionary; frames that were made with one that is lost are unreadable."""
        if self._dictionaries is None:
            self.lost.add(id)
            return
        (data,) = yield [("GET", self._names.dictionary(id))]
        try:
            if self._dictionaries.add(self._calls.string(data) or b"") != id:
                self.lost.add(id)
        except DecodeError:
            self.lost.add(id)

    def forget(self) -> None:
        """Another may be in use by now."""
        self._news += 1
        self.is_known = self._dictionaries is None
        self.lost.clear()
