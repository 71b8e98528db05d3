"""Packets to the byte, from socket.io-protocol 5 and the format of its msgpack parser."""

from __future__ import annotations

import contextlib
import json
import struct
import tracemalloc
import zlib
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.wire import codec
from server.wire.codec import (
    ACK,
    ACK_DIGITS,
    ATTACHMENTS,
    BINARY_EVENT,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    RESERVED,
    Encoding,
    Packet,
    Received,
    ack_packet,
    event_packet,
    packet_of,
    parse_packed,
    parse_text,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=12,
)
NAMES = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: name not in RESERVED)
NAMESPACES = st.sampled_from(["/", "/custom", "/a/b", "/كلمة"])
ACK_IDS = st.none() | st.integers(0, 10**ACK_DIGITS - 1)


# packets that clients send, in text


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        (b"0", Received(CONNECT, "/", None, None)),
        (b'0{"token":"123"}', Received(CONNECT, "/", None, {"token": "123"})),
        (b'0/admin,{"token":"123"}', Received(CONNECT, "/admin", None, {"token": "123"})),
        (b"0/admin,", Received(CONNECT, "/admin", None, None)),
        (b"0/admin", Received(CONNECT, "/admin", None, None)),
        (b"0/admin?token=1,", Received(CONNECT, "/admin", None, None)),
        (b"1", Received(DISCONNECT, "/", None, None)),
        (b"1/admin,", Received(DISCONNECT, "/admin", None, None)),
        (b'2["foo"]', Received(EVENT, "/", None, ["foo"])),
        (b'2/admin,["bar"]', Received(EVENT, "/admin", None, ["bar"])),
        (b'212["foo"]', Received(EVENT, "/", 12, ["foo"])),
        (b'2/admin,13["bar",1]', Received(EVENT, "/admin", 13, ["bar", 1])),
        (b'312["bar"]', Received(ACK, "/", 12, ["bar"])),
        (b"3/admin,13[]", Received(ACK, "/admin", 13, [])),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)
def test_the_packets_of_the_specification_are_understood(text: bytes, packet: Received) -> None:
    assert parse_text(text) == packet
    assert parse_text(b"4" + text, 1) == packet


def test_a_binary_event_is_whole_when_its_attachments_have_come() -> None:
    packet = parse_text(b'52-/admin,7["baz",{"_placeholder":true,"num":1},[{"_placeholder":true,"num":0}]]')
    assert (packet.type, packet.namespace, packet.ack_id, packet.attachments) == (BINARY_EVENT, "/admin", 7, 2)
    assert packet.filled([b"a", b"b"]) == Received(EVENT, "/admin", 7, ["baz", b"b", [b"a"]])


def test_a_binary_ack_is_an_ack() -> None:
    assert parse_text(b'61-7[{"_placeholder":true,"num":0}]').filled([b"a"]) == Received(ACK, "/", 7, [b"a"])


def test_what_only_looks_like_a_placeholder_is_data() -> None:
    data = ["x", {"_placeholder": 1, "num": 0}, {"num": 0}, {"_placeholder": False}]
    assert parse_text(b"50-" + json.dumps(data).encode()).filled([]).data == data


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "a type that is none": b'7["x"]',
    "a letter": b"x",
    "a minus": b'-2["x"]',
    "an event of nothing": b"2",
    "an event of digits": b"2123",
    "an event of a string": b'2"x"',
    "an event of an object": b'2{"a":1}',
    "an event without a name": b"2[]",
    "an event named by a number": b"2[1]",
    "an event named by null": b"2[null]",
    "half an event": b'2["x"',
    "an event and more": b'2["x"]]',
    "an event with a comma too many": b'2["x",]',
    "single quotes": b"2['x']",
    "NaN": b'2["x",NaN]',
    "Infinity": b'2["x",-Infinity]',
    "a number beyond all measure": b'2["x",1e400]',
    "an ack id of sixteen digits": b"2" + b"1" * 16 + b'["x"]',
    "an ack id of five thousand digits": b"2" + b"1" * 5_000 + b'["x"]',
    "a negative ack id": b'2-1["x"]',
    "a fraction for an ack id": b'21.5["x"]',
    "a number of five thousand digits": b'2["x",' + b"9" * 5_000 + b',"\\ud800"]',
    "UTF-16": b"2" + '["x"]'.encode("utf-16-le"),
    "UTF-32": b"2" + '["x"]'.encode("utf-32-be"),
    "a byte order mark": b'2\xef\xbb\xbf["x"]',
    "half of a character": b'2["\xc3"]',
    "half of a pair in UTF-8": b'2["\xed\xa0\x80"]',
    "a character in more bytes than it needs": b'2["\xc0\xaf"]',
    "NUL": b'2["x"]\0',
    "many lists": b"2" + b"[" * 100_000,
    "many objects": b"2" + b'["x",' + b'{"a":' * 20_000,
    "an event with attachments that no binary one has": b'21-["x"]',
    "a binary event that does not say how many": b'5["x"]',
    "a binary event of too many": b'5%d-["x"]' % (ATTACHMENTS + 1),
    "a binary event of far too many": b'5999999999-["x"]',
    "a binary event of minus one": b'5-1-["x"]',
    "a connect with attachments": b"01-{}",
    "a connect that is no JSON": b"0{",
    "a namespace in half characters": b"0/\xc3,",
    "a namespace with half a character behind its question mark": b"0/admin?a=\xc3,",
    "a disconnect that says more": b'1{"why":1}',
    "an ack of nothing": b"31",
    "an ack of an object": b"31{}",
    "an ack of a string": b'31"x"',
    "a connect error, which servers send": b'4{"message":"x"}',
} | {f"the reserved {name}": b"2" + json.dumps([name]).encode() for name in sorted(RESERVED)}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_a_text_that_is_no_packet_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (what it says is for nobody)
        parse_text(text)


@pytest.mark.parametrize(
    "num", ["-1", "1", "1.0", '"0"', "true", "null", "[]", "9999999999999999999"], ids=lambda num: f"num {num}"
)
def test_a_placeholder_of_no_attachment_is_refused(num: str) -> None:
    packet = parse_text(f'51-["x",{{"_placeholder":true,"num":{num}}}]'.encode())
    with pytest.raises(ValueError, match="placeholder"):
        packet.filled([b"a"])


def test_half_of_a_pair_passes_in_an_escape_for_the_payload_to_be_judged() -> None:
    assert parse_text(rb'2["x","\ud800"]').data == ["x", "\ud800"]


@pytest.mark.parametrize(
    "number",
    [
        "0",
        "-0",
        "-0.0",
        "1e2",
        "9007199254740993",
        "10000000000000000000",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775807",
        "-9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999",
        "1" * 300,
    ],
)
def test_a_number_is_the_same_beside_half_of_a_pair(number: str) -> None:
    alone, beside = orjson.loads(number), codec.loads(f'[{number},"\\ud800"]')[0]
    assert (type(beside), repr(beside)) == (type(alone), repr(alone))


DEEP = 1_000  # levels: as far as the libraries go, and further than calls within calls do


def bottom(value: Any) -> tuple[int, Any]:
    """How many lists and objects there are within one another, and what is in the innermost."""
    levels = 0
    while isinstance(value, list | dict) and value:
        [value] = value.values() if isinstance(value, dict) else value
        levels += 1
    return levels, value


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
@pytest.mark.parametrize("head", ["2", "50-", "51-"])
def test_what_nests_deep_passes_for_the_payload_to_be_judged(head: str, opening: str, closing: str) -> None:
    inner = '{"_placeholder":true,"num":0}' if head == "51-" else "[]"
    packet = parse_text(f'{head}["x",{opening * DEEP}{inner}{closing * DEEP}]'.encode())
    whole = packet if head == "2" else packet.filled([b"a"] * packet.attachments)
    assert bottom(whole.data[1]) == (DEEP, b"a" if head == "51-" else [])


@given(NAMES, st.lists(JSON, max_size=4), NAMESPACES, ACK_IDS)
def test_an_event_in_text_comes_back_as_it_was(
    name: str, arguments: list[Any], namespace: str, ack_id: int | None
) -> None:
    packet = packet_of(EVENT, namespace, ack_id, [name, *arguments])
    assert parse_text(packet.text.encode()) == Received(EVENT, namespace, ack_id, [name, *arguments])


@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    for parse in (parse_text, parse_packed):
        with contextlib.suppress(ValueError):
            packet = parse(data)
            packet.filled([b"a"] * packet.attachments)


@given(st.sampled_from(list(MALFORMED.values())), st.data())
def test_no_part_of_what_is_malformed_does_more_than_be_refused(text: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    with contextlib.suppress(ValueError):
        parse_text(text[:at] + data.draw(st.binary(max_size=3)) + text[at + 1 :])


# packets that clients send, in msgpack


def packed(**fields: Any) -> bytes:
    made: bytes = msgpack.packb(fields)
    return made


def test_a_packet_in_msgpack_is_understood() -> None:
    data = ["x", {"a": [1, 2.5, None, True, "é", b"\xff"]}]
    assert parse_packed(packed(type=2, nsp="/admin", id=7, data=data)) == Received(EVENT, "/admin", 7, data)
    assert parse_packed(packed(type=0, nsp="/", data={"token": "x"})) == Received(CONNECT, "/", None, {"token": "x"})
    assert parse_packed(packed(type=1, nsp="/")) == Received(DISCONNECT, "/", None, None)
    assert parse_packed(packed(type=3, nsp="/", id=0, data=[])) == Received(ACK, "/", 0, [])


def test_undefined_is_what_is_not_there() -> None:
    fields = {"type": 0, "data": msgpack.ExtType(0, b"\0"), "nsp": "/", "options": {"compress": True}}
    assert parse_packed(msgpack.packb(fields)) == Received(CONNECT, "/", None, None)


def event(argument: Any) -> bytes:
    return packed(type=2, nsp="/", data=["x", argument])


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"], ids=["lists", "objects"])
def test_what_nests_deep_in_msgpack_passes_for_the_payload_to_be_judged(opening: bytes) -> None:
    data = event(1)
    assert data.endswith(b"\xa1x\x01")
    assert bottom(parse_packed(data[:-1] + opening * DEEP + b"\x01").data[1]) == (DEEP, 1)


def test_what_is_long_in_msgpack_passes_for_the_payload_to_be_judged() -> None:
    assert parse_packed(event([1] * 20_000)).data == ["x", [1] * 20_000]


MALFORMED_PACKED: dict[str, bytes] = {
    "nothing": b"",
    "a number": packed()[:0] + msgpack.packb(5),
    "a list": msgpack.packb([2, "/", ["x"]]),
    "a text": msgpack.packb('2["x"]'),
    "half a packet": event(1)[:-1],
    "a packet and more": event(1) + b"\0",
    "two packets": event(1) * 2,
    "no type": packed(nsp="/", data=["x"]),
    "a type that is none": packed(type=9, nsp="/", data=["x"]),
    "a type below all": packed(type=-1, nsp="/", data=["x"]),
    "a type that is true": packed(type=True, nsp="/", data=["x"]),
    "a type that is a float": packed(type=2.0, nsp="/", data=["x"]),
    "a binary event, which there is none of": packed(type=5, nsp="/", data=["x"], attachments=1),
    "a namespace that is a number": packed(type=2, nsp=1, data=["x"]),
    "a namespace of bytes": packed(type=2, nsp=b"/", data=["x"]),
    "no data": packed(type=2, nsp="/"),
    "data of an object": packed(type=2, nsp="/", data={}),
    "an event without a name": packed(type=2, nsp="/", data=[]),
    "an event named by bytes": packed(type=2, nsp="/", data=[b"x"]),
    "a negative ack id": packed(type=2, nsp="/", id=-1, data=["x"]),
    "a huge ack id": packed(type=2, nsp="/", id=2**63, data=["x"]),
    "an ack id that is text": packed(type=2, nsp="/", id="1", data=["x"]),
    "an ack id that is true": packed(type=2, nsp="/", id=True, data=["x"]),
    "an ack of nothing": packed(type=3, nsp="/", id=1),
    "a disconnect that says more": packed(type=1, nsp="/", data=[]),
    "a connect error, which servers send": packed(type=4, nsp="/", data={}),
    "a time": event(msgpack.Timestamp(1, 0)),
    "an extension": event(msgpack.ExtType(5, b"x")),
    "an extension that is almost undefined": event(msgpack.ExtType(0, b"\1")),
    "NaN": event(float("nan")),
    "infinity": event(float("-inf")),
    "a key that is a number": msgpack.packb({"type": 2, "nsp": "/", "data": ["x", {1: 2}]}),
    "a key of bytes": msgpack.packb({"type": 2, "nsp": "/", "data": ["x", {b"a": 2}]}),
    "a key that is a list": b"\x81\x91\x01\x02",
    "text that is not UTF-8": event("é").replace(b"\xc3\xa9", b"\xc3\x28"),
    "half of a pair": event("\u0800").replace(b"\xe0\xa0\x80", b"\xed\xa0\x80"),
    "a byte that begins nothing": b"\xc1",
    "very many levels": b"\x91" * 100_000,
    "very many maps": b"\x81\xa1a" * 40_000,
    "a list said to be huge": b"\xdd\xff\xff\xff\xff",
    "a map said to be huge": b"\xdf\xff\xff\xff\xff",
    "bytes said to be huge": b"\xc6\xff\xff\xff\xff",
    "text said to be huge": b"\xdb\xff\xff\xff\xff",
    "an extension said to be huge": b"\xc9\xff\xff\xff\xff\x00",
} | {f"the reserved {name}": packed(type=2, nsp="/", data=[name]) for name in sorted(RESERVED)}


@pytest.mark.parametrize("data", MALFORMED_PACKED.values(), ids=MALFORMED_PACKED)
def test_bytes_that_are_no_packet_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_packed(data)


CLAIMS: dict[str, bytes] = {
    "as many as 16 bits say": b"\xdc\xff\xff" * 1_000,
    "thousands each": b"\xdc\x20\x00" * 1_000,
    "thousands each, in the data of an event": event(1)[:-1] + b"\xdc\x20\x00" * 1_000,
    "as many as there are bytes": (b"\xdd" + (131_062).to_bytes(4)) * 1_000 + bytes(126_072),
    "as many as there are bytes in little": b"\xdc\x01\xfe" * 170,
    "objects": b"\xdf\x00\x00\x20\x00" * 1_000,
}


@pytest.mark.parametrize("data", CLAIMS.values(), ids=CLAIMS)
def test_lists_that_claim_far_more_than_they_hold_take_little(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="not msgpack"):
            parse_packed(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # with room made for each of them it was sixty times that
    finally:
        tracemalloc.stop()


@given(NAMES, st.lists(JSON | st.binary(), max_size=4), NAMESPACES, ACK_IDS)
def test_an_event_in_msgpack_comes_back_as_it_was(
    name: str, arguments: list[Any], namespace: str, ack_id: int | None
) -> None:
    packet = packet_of(EVENT, namespace, ack_id, [name, *arguments])
    [message] = packet.messages(Encoding.MSGPACK)
    assert isinstance(message, bytes)
    assert parse_packed(message) == Received(EVENT, namespace, ack_id, [name, *arguments])


@given(st.binary(max_size=30), st.data())
def test_no_change_of_a_packet_does_more_than_be_refused(extra: bytes, data: st.DataObject) -> None:
    whole = event({"a": [1, 2.5, b"\xff", "é", None]})
    at = data.draw(st.integers(0, len(whole)))
    with contextlib.suppress(ValueError):
        parse_packed(whole[:at] + extra + whole[at + len(extra) :])


# packets that the server sends


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """The first byte and the payload of each frame."""
    found = []
    while data:
        first, size, at = data[0], data[1], 2
        if size == 126:
            size, at = struct.unpack_from("!H", data, 2)[0], 4
        found.append((first, data[at : at + size]))
        data = data[at + size :]
    return found


def test_what_parley_sends_is_built_of_json_that_is_there() -> None:
    assert (
        event_packet("message:created", '{"text":"x"}', '{"seq":1}').text
        == '2["message:created",{"text":"x"},{"seq":1}]'
    )
    assert ack_packet(7, '{"ok":true}').text == '37[{"ok":true}]'
    assert packet_of(CONNECT_ERROR, "/", None, {"message": "no"}).text == '4{"message":"no"}'
    assert packet_of(CONNECT, "/admin", None, {"sid": "x"}).text == '0/admin,{"sid":"x"}'
    assert packet_of(DISCONNECT, "/admin").text == "1/admin,"


def test_bytes_go_as_attachments_in_text_and_as_themselves_in_msgpack() -> None:
    packet = packet_of(EVENT, "/admin", 3, ["x", {"a": b"\1"}, [bytearray(b"\2"), memoryview(b"\3")]])
    text = '53-/admin,3["x",{"a":{"_placeholder":true,"num":0}},'
    assert packet.text.startswith(text)
    assert packet.messages(Encoding.JSON) == (packet.text, b"\1", b"\2", b"\3")
    assert [first for first, _ in frames_of(packet.encode(Encoding.JSON))] == [0x81, 0x82, 0x82, 0x82]
    [message] = packet.messages(Encoding.MSGPACK)
    assert msgpack.unpackb(message) == {
        "type": 2,
        "nsp": "/admin",
        "data": ["x", {"a": b"\1"}, [b"\2", b"\3"]],
        "id": 3,
    }


def test_an_ack_of_bytes_is_a_binary_ack() -> None:
    assert packet_of(ACK, "/", 5, [b"x"]).text == '61-5[{"_placeholder":true,"num":0}]'


def test_what_json_has_no_word_for_is_not_sent() -> None:
    with pytest.raises(TypeError):
        packet_of(EVENT, "/", None, ["x", object()])


@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_packet_is_encoded_once_however_many_it_goes_to(encoding: Encoding, monkeypatch: pytest.MonkeyPatch) -> None:
    packed_: list[int] = []
    real = codec.packed
    monkeypatch.setattr(codec, "packed", lambda *args: packed_.append(1) or real(*args))
    packet = event_packet("x", json.dumps("y" * 2_000))
    assert packet.frames == [None] * 4
    first = packet.encode(encoding)
    assert packet.frames[encoding] is first
    packet.messages(encoding)
    packet.encode(Encoding(encoding ^ 2))
    packet.messages(encoding)
    assert len(packed_) == (1 if encoding.is_msgpack else 0)


def test_a_frame_is_a_text_in_json_and_binary_in_msgpack_and_compressed_where_that_is_worth_it() -> None:
    long = event_packet("x", json.dumps("y" * 2_000))
    short = event_packet("x", '"y"')
    assert frames_of(short.encode(Encoding.JSON)) == [(0x81, b'42["x","y"]')]
    assert frames_of(short.encode(Encoding.MSGPACK)) == [(0x82, short.messages(Encoding.MSGPACK)[0])]
    assert frames_of(short.encode(Encoding.JSON_DEFLATED)) == frames_of(short.encode(Encoding.JSON))
    for plain, deflated in ((Encoding.JSON, 0xC1), (Encoding.MSGPACK, 0xC2)):
        [(_, payload)] = frames_of(long.encode(plain))
        [(first, squeezed)] = frames_of(long.encode(plain.deflated()))
        assert first == deflated
        assert zlib.decompressobj(wbits=-15).decompress(squeezed + b"\0\0\xff\xff") == payload


def test_an_encoding_is_chosen_in_either_order() -> None:
    assert Encoding.JSON.packed().deflated() == Encoding.JSON.deflated().packed() == Encoding.MSGPACK_DEFLATED
    assert [each.is_msgpack for each in Encoding] == [False, True, False, True]


def test_a_packet_shows_itself_shortly() -> None:
    assert len(repr(Packet("2" + "x" * 1_000))) < 100
