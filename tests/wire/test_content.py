"""Serializers, compressions, and what is accepted."""

import bz2
import functools
import gzip
import lzma
import pickle
import sys
import zlib
from datetime import datetime, timedelta, timezone
from typing import Any

import brotli
import pytest
import zstandard

from celeriac.errors import ConfigError, ContentRefused, EncodeError, MalformedMessage
from celeriac.wire.content import COMPRESSIONS, SERIALIZERS, Codecs

EVERYTHING = Codecs(tuple(SERIALIZERS))
VALUE = [[1, "hé", None], {"k": [1.5, True]}, {}]


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_value_comes_back_through_every_serializer(serializer: str):
    written = EVERYTHING.encode(VALUE, serializer)
    assert EVERYTHING.decode(written.body, written.content_type, written.content_encoding) == VALUE
    assert EVERYTHING.encode(VALUE, written.content_type) == written


@pytest.mark.parametrize("serializer", ["msgpack", "yaml", "pickle"])
def test_only_json_is_read_unless_told_otherwise(serializer: str):
    written = Codecs().encode(VALUE, serializer)
    assert not Codecs().accepts(written.content_type)
    with pytest.raises(ContentRefused, match=r"accept_content"):
        Codecs().decode(written.body, written.content_type, written.content_encoding)


def test_what_is_refused_is_not_looked_at():
    with pytest.raises(ContentRefused):
        Codecs(("msgpack",)).decode(b"[]", "application/json", "utf-8")
    with pytest.raises(ContentRefused):
        Codecs().decode(b"not even gzip", "application/x-python-serialize", "binary", "application/x-gzip")


def test_content_types_are_compared_exactly():
    for content_type in ("json", "application/json; charset=utf-8", "APPLICATION/JSON", "text/plain"):
        assert not EVERYTHING.accepts(content_type)


def test_names_and_content_types_are_both_understood():
    assert Codecs(("application/x-yaml", "pickle")).accepts("application/x-yaml")
    assert Codecs(("text/plain",)).decode(b"text", "text/plain", "utf-8") == "text"
    with pytest.raises(ConfigError, match="'jsn'"):
        Codecs(("jsn",))


def test_data_and_text_stay_what_they_are():
    assert Codecs().decode(b"\xff", "application/data", "binary") == b"\xff"
    assert Codecs().decode(b"[1]", None, None) == b"[1]"
    assert Codecs().decode("é".encode(), "application/text", "utf-8") == "é"
    with pytest.raises(MalformedMessage):
        Codecs().decode(b"\xff", "application/text", "utf-8")


@pytest.mark.parametrize(
    "encoding", [None, "", "utf-8", "UTF-8", "utf8", "us-ascii", "binary", "latin-1", "utf-16"]
)
def test_content_encodings(encoding: str | None):
    body = "[1]".encode("utf-16" if encoding == "utf-16" else "ascii")
    assert Codecs().decode(body, "application/json", encoding) == [1]


def test_an_unknown_content_encoding_is_malformed():
    with pytest.raises(MalformedMessage, match="klingon"):
        Codecs().decode(b"[1]", "application/json", "klingon")


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize(
    "body", [b"", b"\x00\x01garbage", b"\xff\xfe", b"[1, 2", b"!!python/object:os.system {}"]
)
def test_a_broken_body_is_malformed_whatever_the_serializer(serializer: str, body: bytes):
    mime = SERIALIZERS[serializer]
    try:
        found = EVERYTHING.decode(body, mime, None)
    except MalformedMessage:
        return
    assert serializer in {"yaml", "msgpack"}, found  # text is YAML already, and a byte is msgpack


def test_an_object_that_fails_while_it_is_unpickled_is_malformed():
    with pytest.raises(MalformedMessage):
        EVERYTHING.decode(pickle.dumps(Vicious()), SERIALIZERS["pickle"], "binary")


class Vicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (divmod, (1, 0))


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
def test_a_value_that_a_serializer_lacks_is_an_encode_error(serializer: str):
    with pytest.raises(EncodeError):
        EVERYTHING.encode(lambda: None, serializer)


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
@pytest.mark.parametrize("ending", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_value_whose_own_methods_raise_is_an_encode_error(serializer: str, ending: type[BaseException]):
    class Hostile:
        def __repr__(self) -> str:
            raise ending

        def __reduce__(self) -> Any:
            raise ending

    with pytest.raises(EncodeError):
        EVERYTHING.encode([Hostile()], serializer)


@pytest.mark.parametrize(
    "value",
    [
        {(1, 2): 3},
        {1, (2, 3)},
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, seconds=7))),
        functools.reduce(lambda inner, _: [inner], range(300), []),
    ],
    ids=["a tuple for a key", "a tuple in a set", "an offset with seconds", "300 levels"],
)
def test_what_no_reader_of_yaml_would_make_again_is_an_encode_error(value: Any):
    with pytest.raises(EncodeError):
        EVERYTHING.encode(value, "yaml")


def test_a_tuple_for_a_key_comes_back_through_msgpack():
    value = {(1, ("a", 2)): {(): [3]}, "k": 4}
    content = EVERYTHING.encode(value, "msgpack")
    assert EVERYTHING.decode(content.body, content.content_type, content.content_encoding) == value


def test_a_body_that_asks_to_end_the_process_is_malformed():
    class Exits:
        def __reduce__(self) -> Any:
            return sys.exit, (3,)

    with pytest.raises(MalformedMessage):
        EVERYTHING.decode(pickle.dumps(Exits()), SERIALIZERS["pickle"], "binary")


def test_an_unknown_serializer_is_named():
    with pytest.raises(EncodeError, match=r"'xml'.*json"):
        EVERYTHING.encode(1, "xml")


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_body_comes_back_through_every_compression(name: str):
    packed, mime = Codecs().compress(b"[1, 2]" * 1000, name)
    assert len(packed) < 600
    assert Codecs().decompress(packed, mime) == b"[1, 2]" * 1000
    assert Codecs().decompress(packed, name) == b"[1, 2]" * 1000


def test_the_gzip_type_is_a_zlib_stream_and_real_gzip_is_read_too():
    packed, mime = Codecs().compress(b"body", "gzip")
    assert zlib.decompress(packed) == b"body"
    assert Codecs().decompress(gzip.compress(b"body"), mime) == b"body"


BOMBS = {
    "application/x-gzip": zlib.compress,
    "application/x-bz2": bz2.compress,
    "application/x-lzma": lzma.compress,
    "application/x-brotli": brotli.compress,
    "application/zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("mime", BOMBS)
def test_a_body_that_grows_beyond_the_limit_is_malformed(mime: str):
    packed = BOMBS[mime](bytes(1_000_001))
    codecs = Codecs(limit=1_000_000)
    with pytest.raises(MalformedMessage, match="larger than 1000000 bytes"):
        codecs.decompress(packed, mime)
    assert codecs.decompress(BOMBS[mime](bytes(1_000_000)), mime) == bytes(1_000_000)


@pytest.mark.parametrize("mime", BOMBS)
def test_a_compressed_body_that_is_cut_or_broken_is_malformed(mime: str):
    packed = BOMBS[mime](b"some text that is long enough" * 10)
    for broken in (packed[:-5], packed[: len(packed) // 2], b"", b"garbage", b"\xff" * 20):
        with pytest.raises(MalformedMessage):
            Codecs().decompress(broken, mime)


def test_an_unknown_compression_is_refused_when_read_and_an_error_when_written():
    with pytest.raises(ContentRefused, match="snappy"):
        Codecs().decode(b"", "application/json", None, "snappy")
    with pytest.raises(EncodeError, match=r"'snappy'.*gzip"):
        Codecs().compress(b"", "snappy")


@pytest.mark.parametrize(
    ("library", "serializer", "extra"), [("msgpack", "msgpack", "msgpack"), ("yaml", "yaml", "yaml")]
)
def test_a_missing_serializer_library_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, library: str, serializer: str, extra: str
):
    monkeypatch.setitem(sys.modules, library, None)  # Python finds it no longer
    codecs = Codecs((serializer,))
    with pytest.raises(EncodeError, match=rf"celeriac\[{extra}\]"):
        codecs.encode(1, serializer)
    with pytest.raises(ContentRefused, match=rf"celeriac\[{extra}\]"):
        codecs.decode(b"1", SERIALIZERS[serializer], None)


@pytest.mark.parametrize(("library", "name"), [("brotli", "brotli"), ("zstandard", "zstd")])
def test_a_missing_compression_library_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, library: str, name: str
):
    monkeypatch.setitem(sys.modules, library, None)  # Python finds it no longer
    codecs = Codecs()
    with pytest.raises(EncodeError, match=r"celeriac\[compression\]"):
        codecs.compress(b"", name)
    with pytest.raises(ContentRefused, match=r"celeriac\[compression\]"):
        codecs.decompress(b"", COMPRESSIONS[name])


def test_yaml_builds_no_objects():
    with pytest.raises(MalformedMessage):
        EVERYTHING.decode(b"!!python/object/apply:os.getcwd []", SERIALIZERS["yaml"], "utf-8")
    assert EVERYTHING.decode(b"2020-01-02 03:04:05", SERIALIZERS["yaml"], "utf-8") == datetime(
        2020, 1, 2, 3, 4, 5
    )
