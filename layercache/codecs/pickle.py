"""The stage `pickle`: values of any class, as Python's own pickles (protocol 5).

Reading a pickle runs what it names, so its frames are read only behind a seal (`sign`, `encrypt`): a pipeline without
one is refused. In this process's memory, where nobody else writes, it stands alone.
"""

from __future__ import annotations

import pickle
import reprlib
from typing import Any, ClassVar, Final

from layercache.errors import DecodeError, EncodeError
from layercache.options import options
from layercache.spi import Serializer

__all__ = ["PickleOptions", "PickleStage"]

_PROTOCOL: Final = 5  # of every Python that runs this; a newer one's own might not be read by an older


@options
class PickleOptions:
    """The stage has nothing to set."""


class PickleStage(Serializer):
    """Serializes values with the standard library's pickle."""

    name: ClassVar[str] = "pickle"
    Options: ClassVar[type[Any]] = PickleOptions
    names_code: ClassVar[bool] = True
    is_exact: ClassVar[bool] = True

    def dumps(self, value: Any) -> bytes:
        try:
            return pickle.dumps(value, _PROTOCOL)
        except Exception as error:  # of the classes' own __reduce__ and __getstate__ as well
            kind = type(value).__qualname__
            raise EncodeError(
                f"pickle cannot carry the value, a {kind}: {reprlib.repr(str(error))}"
            ) from error

    def loads(self, payload: bytes) -> Any:
        try:
            return pickle.loads(payload)  # noqa: S301  (sealed, or never left this process)
        except Exception as error:  # a class that moved or changed since may raise anything
            raise DecodeError(f"cannot be unpickled here: {type(error).__name__}") from error
