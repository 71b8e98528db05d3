"""What a file's first bytes say that it is, what of an upload is wrong, and under which name a file is saved."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.attachments import CONTENT_TYPES, NAME, disposition, mismatches, types_of

MATROSKA = b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82"
BOTH_MP4, BOTH_WEBM = {"video/mp4", "audio/mp4"}, {"video/webm", "audio/webm"}
HEADS: dict[str, tuple[bytes, set[str]]] = {
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF\0", {"image/jpeg"}),
    "png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", {"image/png"}),
    "gif 87": (b"GIF87a\1\0\1\0", {"image/gif"}),
    "gif 89": (b"GIF89a\1\0\1\0", {"image/gif"}),
    "webp": (b"RIFF\x24\0\0\0WEBPVP8 ", {"image/webp"}),
    "mp4 of Android": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", BOTH_MP4),
    "mp4 of ffmpeg": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", BOTH_MP4),
    "fragmented mp4": (b"\0\0\0\x1cftypiso6\0\0\0\0iso6mp41", BOTH_MP4),
    "m4v": (b"\0\0\0\x1cftypM4V \0\0\0\0M4V mp42isom", {"video/mp4"}),
    "m4a": (b"\0\0\0\x1cftypM4A \0\0\0\0M4A mp42isom", {"audio/mp4"}),
    "mov of an iPhone": (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", {"video/quicktime"}),
    "old mov": (b"\0\0\0\x08wide\0\1\2\3mdat", {"video/quicktime"}),
    "webm": (MATROSKA + b"\x84webmB\x87\x81\x04", BOTH_WEBM),
    "webm with a long size": (MATROSKA + b"\x01\0\0\0\0\0\0\x04webmB\x87\x81\x04", BOTH_WEBM),
    "mp3 with a tag": (b"ID3\4\0\0\0\0\0\x23TSSE", {"audio/mpeg", "audio/aac"}),
    "mp3 without": (b"\xff\xfb\x90\x64\0\0", {"audio/mpeg"}),
    "mp2": (b"\xff\xfd\x84\x04\0\0", {"audio/mpeg"}),
    "aac": (b"\xff\xf1\x50\x80\x02\x1f\xfc", {"audio/aac"}),
    "aac of MPEG-2": (b"\xff\xf9\x50\x80\x02\x1f\xfc", {"audio/aac"}),
    "old aac": (b"ADIF\0\0", {"audio/aac"}),
    "ogg": (b"OggS\0\2\0\0\0\0\0\0\0\0", {"audio/ogg"}),
    "wav": (b"RIFF\x24\0\0\0WAVEfmt ", {"audio/wav"}),
    "pdf": (b"%PDF-1.7\n", {"application/pdf"}),
}
STRANGERS: dict[str, bytes] = {
    "nothing": b"",
    "html": b"<!doctype html><script>",
    "html in UTF-16": "\ufeff<html><script>".encode("utf-16-le"),
    "text in UTF-16": "\ufeffhello, this is text".encode("utf-16-le"),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>',
    "xml": b'<?xml version="1.0"?><svg/>',
    "html behind a png's first bytes": b"\x89PNG<script>",
    "zip": b"PK\3\4\x14\0",
    "elf": b"\x7fELF\2\1\1\0",
    "exe": b"MZ\x90\0\3\0",
    "heic": b"\0\0\0\x24ftypheic\0\0\0\0mif1heic",
    "avif": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf",
    "3gp": b"\0\0\0\x18ftyp3gp4\0\0\0\0isom3gp4",
    "matroska": MATROSKA + b"\x88matroskaB\x87\x81\x04",
    "avi": b"RIFF\x24\0\0\0AVI LIST",
    "half a riff": b"RIFF",
    "a reserved bit rate": b"\xff\xfb\xf0\x64",
    "a reserved version": b"\xff\xeb\x90\x64",
    "a reserved sampling": b"\xff\xf1\x7c\x80",
    "two bytes": b"\xff\xfb",
    "pdf behind something": b"\n%PDF-1.7",
}


@pytest.mark.parametrize(("head", "types"), HEADS.values(), ids=HEADS)
def test_a_file_is_told_by_its_first_bytes(head: bytes, types: set[str]) -> None:
    assert types_of(head) == types


def test_every_allowed_type_can_be_told() -> None:
    assert set().union(*(types for _, types in HEADS.values())) == CONTENT_TYPES


def test_what_a_browser_would_run_is_not_allowed() -> None:
    assert not {name for name in CONTENT_TYPES if re.search("html|xml|svg|script|text", name)}


@pytest.mark.parametrize("head", STRANGERS.values(), ids=STRANGERS)
def test_what_is_not_allowed_has_no_type(head: bytes) -> None:
    assert types_of(head) == frozenset()


@given(st.binary(max_size=64))
def test_any_bytes_have_allowed_types_or_none(head: bytes) -> None:
    assert types_of(head) <= CONTENT_TYPES


@given(st.text(min_size=1, max_size=64))
def test_no_text_is_taken_for_sound(text: str) -> None:
    for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be"):
        head = text.encode(encoding, "replace")
        if not re.match(rb"\xff[^\xfe]|ID3|ADIF|OggS", head):  # UTF-16 that begins with U+FB90 and the like looks so
            assert not types_of(head) & {"audio/mpeg", "audio/aac", "audio/ogg"}


PNG = b"\x89PNG\r\n\x1a\n"


def judged(content_type: str, uploaded: bytes | None, declared: bytes = PNG) -> set[str]:
    sha256 = None if uploaded is None else hashlib.sha256(uploaded).digest()
    return set(
        mismatches(
            content_type=content_type,
            sha256=hashlib.sha256(declared).digest(),
            size=len(declared),
            file_sha256=sha256,
            file_head=uploaded,
        )
    )


def test_an_upload_is_judged_by_each_field_that_was_declared() -> None:
    assert judged("image/png", PNG) == set()
    assert judged("image/png", PNG + b"!") == {"sha256"}
    assert judged("image/gif", PNG) == {"content_type"}
    assert judged("image/gif", b"<html>") == {"sha256", "content_type"}
    assert judged("image/png", None) == {"size"}


def test_a_container_may_hold_sound_or_pictures() -> None:
    webm = MATROSKA + b"\x84webm"
    assert judged("audio/webm", webm, webm) == judged("video/webm", webm, webm) == set()


DISPOSITIONS = {
    "moon.png": "attachment; filename=\"moon.png\"; filename*=UTF-8''moon.png",
    "قمر.PNG": "attachment; filename=\"___.PNG\"; filename*=UTF-8''%D9%82%D9%85%D8%B1.PNG",
    'a"b\\c.png': "attachment; filename=\"a_b_c.png\"; filename*=UTF-8''a%22b_c.png",
    "100%.png": "attachment; filename=\"100_.png\"; filename*=UTF-8''100%25.png",
    "../../etc/passwd": "attachment; filename=\"_.._etc_passwd.png\"; filename*=UTF-8''_.._etc_passwd.png",
    "a\r\nSet-Cookie: x=1": 'attachment; filename="a__Set-Cookie_ x=1.png"; '
    "filename*=UTF-8''a__Set-Cookie%3A%20x%3D1.png",
    "..": "attachment; filename=\"attachment.png\"; filename*=UTF-8''attachment.png",
    ".bashrc": "attachment; filename=\"bashrc.png\"; filename*=UTF-8''bashrc.png",
    ".png": "attachment; filename=\"png.png\"; filename*=UTF-8''png.png",
    "evil.html": "attachment; filename=\"evil.html.png\"; filename*=UTF-8''evil.html.png",
    "evil.html. ": "attachment; filename=\"evil.html.png\"; filename*=UTF-8''evil.html.png",
    "photo\u202egnp.exe": "attachment; filename=\"photo_gnp.exe.png\"; filename*=UTF-8''photo_gnp.exe.png",
}


@pytest.mark.parametrize(("name", "header"), DISPOSITIONS.items())
def test_a_file_is_saved_under_a_safe_name_of_its_type(name: str, header: str) -> None:
    assert disposition(name, "image/png") == header


@pytest.mark.parametrize("content_type", sorted(CONTENT_TYPES))
def test_every_type_gives_its_files_an_ending(content_type: str) -> None:
    found = re.search(r'filename="moon\.html(\.[a-z0-9]+)"', disposition("moon.html", content_type))
    assert found
    assert f'"moon{found[1]}"' in disposition(f"moon{found[1]}", content_type)


@pytest.mark.parametrize("name", ["moon.png", "قمر بدر.png", "a b", "...a", ".gitignore", "👩‍👩‍👧.jpg", "n" * 255])
def test_a_name_is_taken_as_it_is(name: str) -> None:
    assert re.search(NAME, name)


@given(st.text(min_size=1, max_size=64).filter(lambda name: re.search(NAME, name)))
def test_a_name_that_is_taken_is_saved_as_it_is(name: str) -> None:
    saved = unquote(disposition(name, "image/png").partition("UTF-8''")[2])
    assert saved.removesuffix(".png") in (name.strip(" ."), name.strip(" .").removesuffix(".png"))


@given(st.text(min_size=1, max_size=255))
def test_any_name_makes_a_header_that_is_one(name: str) -> None:
    header = disposition(name, "image/png")
    found = re.fullmatch(r"attachment; filename=\"([^\"\\]+)\"; filename\*=UTF-8''([A-Za-z0-9._~%-]+)", header)
    assert found
    assert all(" " <= char <= "~" for char in header)
    saved = unquote(found[2], errors="strict")
    assert not re.search(r"[/\\\x00-\x1f]", saved)
    assert saved not in (".", "..")
