"""Bodies: serializers, compression, and which of them a reader accepts.

Rules: names and content types are kombu's. A body that is not accepted, or whose library is missing, raises
``ContentRefused`` before a byte of it is interpreted. An accepted body that is broken, or exceeds the limits, raises
``MalformedMessage``. No other error is raised. The limits do not apply to pickle: a reader that accepts pickle runs the
sender's code anyway.
"""

from __future__ import annotations

import bz2
import lzma
import pickle
import zlib
from collections.abc import Callable, Collection
from functools import partial
from importlib.util import find_spec
from typing import Any

import msgspec

from celeriac.errors import ConfigError, ContentRefused, EncodeError, MalformedMessage
from celeriac.wire.extended_json import decode_json, encode_json
from celeriac.wire.preview import preview

JSON = "application/json"
MSGPACK = "application/x-msgpack"
YAML = "application/x-yaml"
PICKLE = "application/x-python-serialize"

SERIALIZERS = {"json": JSON, "msgpack": MSGPACK, "yaml": YAML, "pickle": PICKLE}
"""Serializer name to content type."""

RAW_TYPES = frozenset({"application/data", "application/text"})
"""Content types that hold bytes or text as they are; always accepted."""

COMPRESSIONS = {
    "gzip": "application/x-gzip",
    "zlib": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "bzip": "application/x-bz2",
    "lzma": "application/x-lzma",
    "xz": "application/x-lzma",
    "brotli": "application/x-brotli",
    "zstd": "application/zstd",
    "zstandard": "application/zstd",
}
"""Compression name to the type written in the ``compression`` header. gzip and zlib are both a zlib stream."""

_PICKLE_PROTOCOL = 4
_BYTE_ENCODINGS = frozenset(
    {None, "", "binary", "utf-8", "UTF-8", "utf8", "ascii", "ASCII", "us-ascii", "ascii-8bit"}
)
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_ZSTD_PIECE = 256
_ZSTD_WINDOW = 128 * 1024 * 1024
_LZMA_MEMORY = 128 * 1024 * 1024
"""Bytes that a decoder may take: what the highest levels of these compressions need."""

MAX_DECOMPRESSED_SIZE = 16 * 1024 * 1024
MAX_DECOMPRESSED_RATIO = 100.0

FREE = 1024 * 1024
"""Bytes that every compressed body may grow to, whatever the ratio; what is smaller is decoded in some milliseconds."""

_LONG_YAML = 64 * 1024
_EXTRAS = {
    MSGPACK: "msgpack",
    YAML: "yaml",
    "application/x-brotli": "compression",
    "application/zstd": "compression",
}


class Content(msgspec.Struct, frozen=True, gc=False):
    """A serialized value."""

    body: bytes
    content_type: str
    content_encoding: str


class Codecs:
    """The serializers and compressions that one app reads and writes.

    Writing is possible with every serializer whose library is installed; reading only with those accepted.

    :param accept: serializer names or content types to read (Celery: ``accept_content``).
    :param limit: bytes that a body may have after decompression, or a YAML document with its aliases written out.
    :param ratio: how many times larger than its compressed form a body may be, if it is larger than ``FREE``.
    :raises ConfigError: a name in ``accept`` is unknown.
    :ivar quick: bytes of a body up to which decoding never takes long.
    """

    def __init__(
        self,
        accept: Collection[str] = ("json",),
        limit: int = MAX_DECOMPRESSED_SIZE,
        ratio: float = MAX_DECOMPRESSED_RATIO,
    ) -> None:
        self._accepted = RAW_TYPES | {_content_type(name) for name in accept}
        self._limit = limit
        self._ratio = ratio
        self.quick = int(min(FREE / ratio, _LONG_YAML))
        self._encoders = _available_encoders()
        self._decoders = _available_decoders(limit)
        self._compressors = _available_compressors()
        self._decompressors = _available_decompressors()

    def accepts(self, content_type: str) -> bool:
        """Whether bodies of this content type are read here."""
        return content_type in self._accepted

    def reads_as_ascii_json(
        self, body: bytes, content_type: str | None, content_encoding: str | None
    ) -> bool:
        """Whether a body is accepted here and JSON in ASCII without tagged values, if it is JSON at all."""
        return (
            content_type == JSON
            and JSON in self._accepted
            and content_encoding in _BYTE_ENCODINGS
            and body.isascii()
            and body.find(b"__type__") < 0
        )

    def takes_long(
        self, body: bytes, content_type: str | None = None, compression: str | None = None
    ) -> bool:
        """Whether decoding may take so long that an event loop should leave it to a thread."""
        if compression:
            return len(body) * self._ratio > FREE
        return len(body) > _LONG_YAML and (content_type == YAML or len(body) > FREE)

    def encode(self, value: Any, serializer: str) -> Content:
        """Serialize ``value`` (Celery: ``task_serializer``, ``result_serializer``).

        :param serializer: ``json``, ``msgpack``, ``yaml`` or ``pickle``, or the content type itself.
        :raises EncodeError: the value cannot be written, or the serializer is unknown or not installed.
        """
        content_type = SERIALIZERS.get(serializer, serializer)
        if content_type == JSON:
            return Content(encode_json(value), JSON, "utf-8")
        if content_type not in SERIALIZERS.values():
            raise EncodeError(f"unknown serializer {serializer!r}; known are {', '.join(SERIALIZERS)}")
        encode = self._encoders.get(content_type)
        if encode is None:
            raise EncodeError(_missing(content_type, serializer))
        try:
            return Content(encode(value), content_type, "utf-8" if content_type == YAML else "binary")
        except BaseException as error:
            raise EncodeError(f"{serializer} cannot write this value: {preview(error, 500)}") from error

    def decode(
        self,
        body: bytes,
        content_type: str | None,
        content_encoding: str | None,
        compression: str | None = None,
        parse: Callable[[bytes | str], Any] | None = None,
    ) -> Any:
        """Return the value of a body. Without a content type it is bytes as they are, as kombu has it.

        :param compression: the ``compression`` header.
        :param parse: reads the regular form of JSON in ASCII, as records of the caller's.
        :raises ContentRefused: the content type is not accepted, or a library is not installed.
        :raises MalformedMessage: the body is not what its content type says, or too large when decompressed.
        """
        content_type = content_type or "application/data"
        if content_type not in self._accepted:
            raise ContentRefused(
                f"content type {content_type!r:.100} is not accepted here; accept_content would have to name it"
            )
        if compression:
            body = self.decompress(body, compression)
        if content_encoding not in _BYTE_ENCODINGS:
            body = _recode(body, str(content_encoding))
        if content_type == JSON:
            try:
                return decode_json(body, parse) if parse is not None and body.isascii() else decode_json(body)
            except MemoryError:
                raise MalformedMessage("body is too large for the memory that is left") from None
        if content_type not in SERIALIZERS.values():
            return body if content_type == "application/data" else _as_text(body)
        return self._decode(body, content_type)

    def _decode(self, body: bytes, content_type: str) -> Any:
        decode = self._decoders.get(content_type)
        if decode is None:
            raise ContentRefused(_missing(content_type, content_type))
        try:
            return decode(body)
        except MalformedMessage:
            raise
        except BaseException as error:
            raise MalformedMessage(f"not {content_type}: {preview(error, 200)}") from error

    def compress(self, body: bytes, name: str) -> tuple[bytes, str | None]:
        """Compress a body; returns it with the type for the ``compression`` header.

        A body that shrinks so far that readers with the same ratio would refuse it is returned as it is, with ``None``.

        :param name: ``gzip``, ``zlib``, ``bzip2``, ``lzma``, ``brotli`` or ``zstd``, or the type itself.
        :raises EncodeError: the compression is unknown, its library is not installed, or the body is larger than
            readers with the same limit take.
        """
        mime = COMPRESSIONS.get(name, name)
        if mime not in COMPRESSIONS.values():
            raise EncodeError(f"unknown compression {name!r}; known are {', '.join(COMPRESSIONS)}")
        compress = self._compressors.get(mime)
        if compress is None:
            raise EncodeError(_missing(mime, name))
        if len(body) > self._limit:
            raise EncodeError(
                f"{len(body)} bytes are more than readers decompress: send them without compression, "
                f"or raise max_decompressed_size={self._limit} there and here"
            )
        packed = compress(body)
        return (packed, mime) if len(body) <= self._allowed(packed) else (body, None)

    def decompress(self, body: bytes, mime: str) -> bytes:
        """Decompress a body, never to more than the limits of size and ratio.

        :param mime: the ``compression`` header; a name is understood too.
        :raises ContentRefused: the compression is unknown or its library is not installed.
        :raises MalformedMessage: the body is broken, cut short, or too large.
        """
        mime = COMPRESSIONS.get(mime, mime)
        if mime not in COMPRESSIONS.values():
            raise ContentRefused(f"unknown compression {mime!r:.100}")
        decompress = self._decompressors.get(mime)
        if decompress is None:
            raise ContentRefused(_missing(mime, mime))
        allowed = self._allowed(body)
        try:
            data, complete = decompress(body, allowed + 1)
        except Exception as error:
            raise MalformedMessage(f"not {mime}: {error!r:.200}") from error
        if len(data) > allowed:
            cause = (
                f"max_decompressed_size={self._limit}"
                if allowed == self._limit
                else f"max_decompressed_ratio={self._ratio:g} for its {len(body)} bytes"
            )
            raise MalformedMessage(f"body is larger than {allowed} bytes when decompressed: {cause}")
        if not complete:
            raise MalformedMessage("compressed body is cut short")
        return data

    def _allowed(self, packed: bytes) -> int:
        """Return how large a body may be when decompressed."""
        return min(self._limit, max(FREE, int(len(packed) * self._ratio)))


def _content_type(name: str) -> str:
    if name in SERIALIZERS:
        return SERIALIZERS[name]
    if "/" in name:
        return name
    raise ConfigError(f"accept_content: unknown serializer {name!r}; known are {', '.join(SERIALIZERS)}")


def _missing(mime: str, name: str) -> str:
    extra = _EXTRAS[mime]
    return f"{name} needs a library that is not installed: pip install 'celeriac[{extra}]'"


def _recode(body: bytes, encoding: str) -> bytes:
    try:
        return body.decode(encoding).encode()
    except (LookupError, ValueError) as error:
        raise MalformedMessage(f"body is not {encoding!r:.100}: {error}") from error


def _as_text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"body is not text: {error}") from error


def _available_encoders() -> dict[str, Callable[[Any], bytes]]:
    encoders: dict[str, Callable[[Any], bytes]] = {
        PICKLE: lambda value: pickle.dumps(value, _PICKLE_PROTOCOL)
    }
    if _is_there("msgpack"):
        encoders[MSGPACK] = _write_msgpack
    if _is_there("yaml"):
        encoders[YAML] = _write_yaml
    return encoders


def _available_decoders(limit: int) -> dict[str, Callable[[bytes], Any]]:
    decoders: dict[str, Callable[[bytes], Any]] = {PICKLE: pickle.loads}
    if _is_there("msgpack"):
        decoders[MSGPACK] = _read_msgpack
    if _is_there("yaml"):
        decoders[YAML] = partial(_read_yaml, limit)
    return decoders


def _is_there(library: str) -> bool:
    """Whether an optional library is installed. It is imported when it is first used: in most programs never."""
    return find_spec(library) is not None


def _write_yaml(value: Any) -> bytes:
    from celeriac.wire.yaml_writing import write_yaml

    return write_yaml(value)


def _read_yaml(limit: int, body: bytes) -> Any:
    from celeriac.wire.yaml_budget import read_yaml

    # A document without aliases weighs less than five times its bytes.
    return read_yaml(body, max(limit, 5 * len(body)))


def _write_msgpack(value: Any) -> bytes:
    import msgpack

    return bytes(msgpack.packb(value, use_bin_type=True))


def _read_msgpack(body: bytes) -> Any:
    import msgpack

    try:
        return msgpack.unpackb(body, raw=False, strict_map_key=False)
    except TypeError:  # a tuple that is a key was written as a list, which cannot be one
        return msgpack.unpackb(body, raw=False, strict_map_key=False, object_pairs_hook=_with_tuples_for_keys)


def _with_tuples_for_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    return {_as_tuple(key): value for key, value in pairs}


def _as_tuple(key: Any) -> Any:
    return tuple(map(_as_tuple, key)) if isinstance(key, list) else key


def _available_compressors() -> dict[str, Callable[[bytes], bytes]]:
    compressors: dict[str, Callable[[bytes], bytes]] = {
        "application/x-gzip": zlib.compress,
        "application/x-bz2": bz2.compress,
        "application/x-lzma": lzma.compress,
    }
    if _is_there("brotli"):
        compressors["application/x-brotli"] = _brotli
    if _is_there("zstandard"):
        compressors["application/zstd"] = _zstd
    return compressors


def _available_decompressors() -> dict[str, Callable[[bytes, int], tuple[bytes, bool]]]:
    """Return functions that decompress up to so many bytes, and say whether that was all."""
    decompressors = {
        "application/x-gzip": _unzip,
        "application/x-bz2": lambda body, most: _drain(bz2.BZ2Decompressor(), body, most),
        "application/x-lzma": lambda body, most: _drain(
            lzma.LZMADecompressor(memlimit=_LZMA_MEMORY), body, most
        ),
    }
    if _is_there("brotli"):
        decompressors["application/x-brotli"] = _unbrotli
    if _is_there("zstandard"):
        decompressors["application/zstd"] = _unzstd
    return decompressors


def _unzip(body: bytes, most: int) -> tuple[bytes, bool]:
    stream = zlib.decompressobj(_GZIP_OR_ZLIB)
    return stream.decompress(body, most), stream.eof


def _drain(stream: bz2.BZ2Decompressor | lzma.LZMADecompressor, body: bytes, most: int) -> tuple[bytes, bool]:
    return stream.decompress(body, most), stream.eof


def _brotli(body: bytes) -> bytes:
    import brotli

    packed: bytes = brotli.compress(body)
    return packed


def _zstd(body: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(body)


def _unbrotli(body: bytes, most: int) -> tuple[bytes, bool]:
    import brotli

    stream = brotli.Decompressor()
    parts = [stream.process(body, output_buffer_limit=most)]
    size = len(parts[0])
    while size < most and not stream.is_finished():
        more = stream.process(b"", output_buffer_limit=most - size)
        if not more:
            break
        parts.append(more)
        size += len(more)
    return b"".join(parts), bool(stream.is_finished())


def _unzstd(body: bytes, most: int) -> tuple[bytes, bool]:
    import zstandard

    # The library bounds no output, but a block holds at most 128 KiB: small pieces of input cannot grow far.
    stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    parts: list[bytes] = []
    size = 0
    for start in range(0, len(body), _ZSTD_PIECE):
        parts.append(stream.decompress(body[start : start + _ZSTD_PIECE]))
        size += len(parts[-1])
        if size >= most or stream.eof:
            break
    return b"".join(parts), stream.eof
