"""The stage `zstd`: Zstandard compression (RFC 8878)."""

from __future__ import annotations

from threading import local
from typing import Annotated, Any, ClassVar

import zstandard
from pydantic import Field

from layercache.errors import DecodeError
from layercache.options import options
from layercache.spi import Transform

__all__ = ["ZstdOptions", "ZstdStage"]


@options
class ZstdOptions:
    """Attributes:
    level: 1 (fastest) to 22 (smallest).
    min_bytes: payloads smaller than this are left as they are.
    """

    level: Annotated[int, Field(ge=1, le=22, strict=True)] = 3
    min_bytes: Annotated[int, Field(ge=0, strict=True)] = 256


class ZstdStage(Transform):
    name: ClassVar[str] = "zstd"
    Options: ClassVar[type[Any]] = ZstdOptions

    def __init__(self, options: ZstdOptions) -> None:
        super().__init__(options)
        self._level, self._min_bytes = options.level, options.min_bytes
        self._own = local()  # compressors and decompressors must not be shared by threads

    def encode(self, payload: bytes) -> bytes | None:
        if len(payload) < self._min_bytes:
            return None
        try:
            compressor = self._own.compressor
        except AttributeError:
            compressor = self._own.compressor = zstandard.ZstdCompressor(level=self._level)
        compressed: bytes = compressor.compress(payload)
        return compressed if len(compressed) < len(payload) else None

    def decode(self, payload: bytes, max_bytes: int) -> bytes:
        try:
            # the decompressor ignores max_output_size where the content says its size itself
            size = zstandard.frame_content_size(payload)
            # (-1 where it does not); what follows content of 0 bytes it does not look at
            if not 0 < size <= max_bytes:
                raise DecodeError(f"zstd content of {size} bytes; 1 to {max_bytes} are read")
            try:
                decompressor = self._own.decompressor
            except AttributeError:
                decompressor = self._own.decompressor = zstandard.ZstdDecompressor()
            content: bytes = decompressor.decompress(payload, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise DecodeError(f"not zstd: {error}") from error
        return content
