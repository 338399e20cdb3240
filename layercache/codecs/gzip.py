"""The stage `gzip`: DEFLATE compression in the gzip format (RFC 1952)."""

from __future__ import annotations

import zlib
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from layercache.errors import DecodeError
from layercache.options import options
from layercache.spi import Transform

__all__ = ["GzipOptions", "GzipStage"]

_GZIP: Final = 16 + zlib.MAX_WBITS  # the window size with which zlib reads and writes gzip's header


@options
class GzipOptions:
    """Attributes:
    level: 1 (fastest) to 9 (smallest).
    min_bytes: payloads smaller than this are left as they are.
    """

    level: Annotated[int, Field(ge=1, le=9, strict=True)] = 6
    min_bytes: Annotated[int, Field(ge=0, strict=True)] = 256


class GzipStage(Transform):
    """Compresses payloads with zlib."""

    name: ClassVar[str] = "gzip"
    Options: ClassVar[type[Any]] = GzipOptions

    def encode(self, payload: bytes) -> bytes | None:
        if len(payload) < self.options.min_bytes:
            return None
        compressed = zlib.compress(payload, self.options.level, wbits=_GZIP)
        return compressed if len(compressed) < len(payload) else None

    def decode(self, payload: bytes, max_bytes: int) -> bytes:
        stream = zlib.decompressobj(wbits=_GZIP)
        try:
            content = stream.decompress(payload, max_bytes + 1)
        except zlib.error as error:
            raise DecodeError(f"not gzip: {error}") from error
        if len(content) > max_bytes:
            raise DecodeError(f"gzip content of more than {max_bytes} bytes")
        if not stream.eof or stream.unused_data:
            raise DecodeError("gzip content that does not end where it should")
        return content
