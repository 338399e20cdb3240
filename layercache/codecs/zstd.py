"""The stage `zstd`: Zstandard compression (RFC 8878), with a trained dictionary where there is one.

What it makes is one zstd frame without its magic number, as the stage has a name already. The frame says its
content's size and, in its header, which dictionary it needs.
"""

from __future__ import annotations

from threading import local
from typing import Annotated, Any, ClassVar, Final

import zstandard
from pydantic import Field

from layercache.codecs.dictionaries import LARGEST_PAYLOAD, Dictionaries, Dictionary
from layercache.errors import DecodeError
from layercache.options import options
from layercache.spi import Transform

__all__ = ["ZstdOptions", "ZstdStage"]


_MAGIC: Final = zstandard.MAGIC_NUMBER.to_bytes(4, "little")


@options
class ZstdOptions:
    """Attributes:
    level: 1 (fastest) to 22 (smallest).
    min_bytes: payloads smaller than this are left as they are; with a dictionary, than a quarter of this.
    """

    level: Annotated[int, Field(ge=1, le=22, strict=True)] = 3
    min_bytes: Annotated[int, Field(ge=0, strict=True)] = 256


class ZstdStage(Transform):
    """Attributes:
    dictionaries: its own, and empty; may be replaced by others at any time.
    """

    name: ClassVar[str] = "zstd"
    Options: ClassVar[type[Any]] = ZstdOptions

    def __init__(self, options: ZstdOptions) -> None:
        super().__init__(options)
        self.dictionaries: Dictionaries = Dictionaries()  # pyright: ignore[reportIncompatibleVariableOverride]
        self._level, self._min_bytes = options.level, options.min_bytes
        # with a dictionary JSON of 30 bytes takes 29, of 46 takes 34, of 63 takes 36
        self._min_bytes_with_dictionary = options.min_bytes // 4
        self._own = _Own()

    def encode(self, payload: bytes) -> bytes | None:
        dictionary = self.dictionaries.current
        if dictionary is not None and len(payload) > LARGEST_PAYLOAD:
            dictionary = None
        if len(payload) < (self._min_bytes if dictionary is None else self._min_bytes_with_dictionary):
            return None
        try:
            compressor = self._own.compressors[dictionary]
        except KeyError:
            compressor = self._new_compressor(dictionary)
        compressed: bytes = compressor.compress(payload)
        shrunk = compressed[len(_MAGIC) :]
        # the frame takes five bytes to name the stage
        return shrunk if len(shrunk) + 5 < len(payload) else None

    def dictionary_of(self, payload: bytes) -> int | None:
        try:
            return zstandard.get_frame_parameters(_MAGIC + payload[:32]).dict_id or None
        except zstandard.ZstdError:
            return None

    def decode(self, payload: bytes, max_bytes: int) -> bytes:
        payload = _MAGIC + payload
        try:
            # the decompressor ignores max_output_size where the content says its size itself
            size = zstandard.frame_content_size(payload)
            # (-1 where it does not); what follows content of 0 bytes it does not look at
            if not 0 < size <= max_bytes:
                raise DecodeError(f"zstd content of {size} bytes; 1 to {max_bytes} are read")
            # two bits of the fifth byte say whether a dictionary is named, in 20 ns where all parameters take 70
            id = zstandard.get_frame_parameters(payload).dict_id if payload[4] & 3 else 0
            try:
                decompressor = self._own.decompressors[id]
            except KeyError:
                decompressor = self._new_decompressor(id)
            # the last is allow_extra_data; by name it takes 0.2 us longer
            content: bytes = decompressor.decompress(payload, 0, False, False)
        except zstandard.ZstdError as error:
            raise DecodeError(f"not zstd: {error}") from error
        return content

    def _new_compressor(self, dictionary: Dictionary | None) -> zstandard.ZstdCompressor:
        level, compressors = self._level, self._own.compressors
        # one dictionary is current: what was made for those before will not be needed
        for old in compressors.keys() - {None}:
            del compressors[old]
        made = zstandard.ZstdCompressor(level) if dictionary is None else dictionary.compressor(level)
        compressors[dictionary] = made
        return made

    def _new_decompressor(self, id: int) -> zstandard.ZstdDecompressor:
        made = self.dictionaries.get(id).decompressor() if id else zstandard.ZstdDecompressor()
        self._own.decompressors[id] = made
        return made


class _Own(local):
    """What threads must not share."""

    def __init__(self) -> None:
        self.compressors: dict[Dictionary | None, zstandard.ZstdCompressor] = {}
        self.decompressors: dict[int, zstandard.ZstdDecompressor] = {}  # by the dictionary's id; 0 is none
