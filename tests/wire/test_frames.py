"""Frames and payloads to the byte, from RFC 6455, RFC 7692 and engine.io-protocol 4."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.wire.frames import Kind, close_frame, decode_payload, deflated_frame, encode_payload, frame


def inflated(payload: bytes) -> bytes:
    """A message that was compressed by itself (RFC 7692, 7.2.2)."""
    return zlib.decompressobj(wbits=-15).decompress(payload + b"\0\0\xff\xff")


def test_the_example_of_the_specification_is_framed_as_it_stands_there() -> None:
    assert frame(Kind.TEXT, b"Hello") == bytes.fromhex("81 05 48 65 6c 6c 6f")
    assert frame(Kind.PONG, b"Hello") == bytes.fromhex("8a 05 48 65 6c 6c 6f")


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, "82 00"),
        (125, "82 7d"),
        (126, "82 7e 00 7e"),
        (256, "82 7e 01 00"),
        (65_535, "82 7e ff ff"),
        (65_536, "82 7f 00 00 00 00 00 01 00 00"),
    ],
)
def test_a_length_is_written_in_the_fewest_bytes(size: int, head: str) -> None:
    payload = b"\x07" * size
    assert frame(Kind.BINARY, payload) == bytes.fromhex(head) + payload


def test_a_close_says_its_code() -> None:
    assert close_frame(1009) == b"\x88\x02" + (1009).to_bytes(2)


def test_what_is_short_is_not_compressed() -> None:
    assert deflated_frame(Kind.TEXT, b"x" * 99, 100) == frame(Kind.TEXT, b"x" * 99)


def test_a_compressed_frame_says_so_and_ends_without_the_empty_block() -> None:
    made = deflated_frame(Kind.TEXT, b"x" * 100, 100)
    assert made[0] == 0xC1
    assert not made.endswith(b"\0\0\xff\xff")
    assert inflated(made[2:]) == b"x" * 100


def test_two_compressed_frames_do_not_depend_on_each_other() -> None:
    assert deflated_frame(Kind.TEXT, b"again" * 50, 0) == deflated_frame(Kind.TEXT, b"again" * 50, 0)


def test_the_payload_of_the_specification_is_encoded_and_decoded() -> None:
    body = b"4hello\x1e2\x1ebAQIDBA=="
    assert encode_payload(["4hello", "2", b"\x01\x02\x03\x04"]) == body
    assert decode_payload(body) == ["4hello", "2", b"\x01\x02\x03\x04"]


@pytest.mark.parametrize("body", [b"b!", b"bAQ", b"4x\x1ebAQIDBA=", b"\xff", b"4\xc3", b"bAQID\n"])
def test_a_payload_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (UnicodeDecodeError is one)
        decode_payload(body)


@given(st.lists(st.one_of(st.text().filter(lambda text: "\x1e" not in text), st.binary()), min_size=1, max_size=8))
def test_a_payload_comes_back_as_it_was(packets: list[str | bytes]) -> None:
    typed = [f"4{packet}" if isinstance(packet, str) else packet for packet in packets]
    assert decode_payload(encode_payload(typed)) == typed
