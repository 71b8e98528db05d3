"""What may be attached, what a file's first bytes say that it is, and under which name it is saved.

The types are few, so they are told by a table of their magic numbers here. (puremagic 1.30 calls an M4A a video/mp4
and a WebM as likely a Matroska file, and says audio/wave and application/ogg where a phone declares audio/wav and
audio/ogg: its answers would need a table too.)
"""

import re
from typing import Literal, get_args
from urllib.parse import quote

ContentType = Literal[
    "image/jpeg",
    "image/png",
    "image/gif",
    "image/webp",
    "video/mp4",
    "video/webm",
    "video/quicktime",
    "audio/mpeg",
    "audio/mp4",
    "audio/ogg",
    "audio/wav",
    "audio/aac",
    "audio/webm",
    "application/pdf",
]
"""Nothing that a browser would run: no SVG, no HTML."""

CONTENT_TYPES: frozenset[str] = frozenset(get_args(ContentType))

HEAD_BYTES = 512  # of a file, that its type is told by

_STARTS: tuple[tuple[bytes, frozenset[str]], ...] = (
    (b"\xff\xd8\xff", frozenset({"image/jpeg"})),
    (b"\x89PNG\r\n\x1a\n", frozenset({"image/png"})),
    (b"GIF87a", frozenset({"image/gif"})),
    (b"GIF89a", frozenset({"image/gif"})),
    (b"%PDF-", frozenset({"application/pdf"})),
    (b"OggS", frozenset({"audio/ogg"})),
    (b"ADIF", frozenset({"audio/aac"})),
    (b"ID3", frozenset({"audio/mpeg", "audio/aac"})),  # a tag that stands before either
)
_RIFF = {b"WEBP": frozenset({"image/webp"}), b"WAVE": frozenset({"audio/wav"})}
# ISO base media by the major brand (ISO/IEC 14496-12; mp4ra.org registers them). Pictures (heic, avif) have others.
_MP4 = frozenset({"video/mp4", "audio/mp4"})
_BRANDS = {
    **dict.fromkeys((b"isom", b"mp41", b"mp42", b"avc1", b"dash", b"MSNV", b"mp71"), _MP4),
    **{b"iso%d" % n: _MP4 for n in range(2, 10)},
    **dict.fromkeys((b"M4V ", b"M4VH", b"M4VP"), frozenset({"video/mp4"})),
    **dict.fromkeys((b"M4A ", b"M4B "), frozenset({"audio/mp4"})),
    b"qt  ": frozenset({"video/quicktime"}),
}
_OLD_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # the first atom, before there was an ftyp
_EBML = b"\x1a\x45\xdf\xa3"
_DOCTYPE_WEBM = re.compile(rb"\x42\x82[^w]{1,8}webm", re.DOTALL)  # Matroska's header too begins as WebM's, but for this
_NONE: frozenset[str] = frozenset()


def types_of(head: bytes) -> frozenset[str]:
    """The allowed types that a file with this head may have: several where a container holds sound or pictures."""
    for start, types in _STARTS:
        if head.startswith(start):
            return types
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12], _NONE)
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], _NONE)
    if head[4:8] in _OLD_QUICKTIME:
        return frozenset({"video/quicktime"})
    if head.startswith(_EBML):
        return frozenset({"video/webm", "audio/webm"}) if _DOCTYPE_WEBM.search(head) else _NONE
    return _frames(head)


def _frames(head: bytes) -> frozenset[str]:
    """What begins with a bare frame of sound: eleven or twelve set bits, and fields that have no reserved value."""
    if len(head) < 3 or head[0] != 0xFF:
        return _NONE
    if head[1] & 0xF6 == 0xF0:  # ADTS: twelve bits, layer 00
        return frozenset({"audio/aac"}) if head[2] >> 2 & 0xF < 13 else _NONE
    # MPEG audio, layers III and II. Layer I is left out: UTF-16 text begins like it (FF FE), and no phone records it.
    layer, version = head[1] >> 1 & 3, head[1] >> 3 & 3
    bit_rate, sampling = head[2] >> 4, head[2] >> 2 & 3
    if head[1] & 0xE0 == 0xE0 and layer in (1, 2) and version != 1 and bit_rate != 15 and sampling != 3:
        return frozenset({"audio/mpeg"})
    return _NONE


def mismatches(
    *, content_type: str, sha256: bytes, size: int, file_sha256: bytes | None, file_head: bytes | None
) -> dict[str, str]:
    """What of an upload is not as it was declared, by field; None for what was uploaded where nothing was."""
    if file_sha256 is None or file_head is None:
        return {"size": f"{size} bytes are declared, and none have been uploaded: PUT them to the upload_url"}
    wrong = {}
    if file_sha256 != sha256:
        wrong["sha256"] = f"what was uploaded has {file_sha256.hex()}"
    types = types_of(file_head)
    if content_type not in types:
        wrong["content_type"] = f"what was uploaded is {' or '.join(sorted(types)) or 'of none of the types allowed'}"
    return wrong


# Control characters, ends of lines, path separators, and what turns the direction of text (Unicode's Bidi_Control): by
# that an .exe shows as a .png.
_UNSAFE = r"\x00-\x1f\x7f-\x9f/\\\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
NAME = rf"\A(?![.\s]*\Z)[^{_UNSAFE}]+\Z"
"""The pattern of an attachment's name: nothing unsafe, and not of dots and blanks alone."""

_EXTENSIONS: dict[str, tuple[str, ...]] = {
    "image/jpeg": ("jpg", "jpeg", "jpe", "jfif"),
    "image/png": ("png",),
    "image/gif": ("gif",),
    "image/webp": ("webp",),
    "video/mp4": ("mp4", "m4v"),
    "video/webm": ("webm",),
    "video/quicktime": ("mov", "qt"),
    "audio/mpeg": ("mp3", "mp2", "mpga"),
    "audio/mp4": ("m4a", "m4b", "mp4"),
    "audio/ogg": ("ogg", "oga", "opus"),
    "audio/wav": ("wav", "wave"),
    "audio/aac": ("aac",),
    "audio/webm": ("weba", "webm"),
    "application/pdf": ("pdf",),
}
"""What the names of files of a type end in; the first is given to those that end in something else."""

_NOT_PLAIN = re.compile(r"[^ !#$&+\-.0-9A-Z^_`a-z{}~()\[\],;=@]")


def disposition(name: str, content_type: str) -> str:
    """The Content-Disposition (RFC 6266) that lets a browser save a file under its name, and never show it in place.

    A name that does not end as its type does gets that ending too: what is saved is opened as what was judged.
    """
    safe = re.sub(f"[{_UNSAFE}]", "_", name).strip(" .") or "attachment"
    extensions = _EXTENSIONS[content_type]
    stem, _, extension = safe.rpartition(".")
    if not stem or extension.lower() not in extensions:
        safe = f"{safe}.{extensions[0]}"
    plain = _NOT_PLAIN.sub("_", safe)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(safe, safe='')}"
