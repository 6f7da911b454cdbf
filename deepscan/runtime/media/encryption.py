"""Detection of encrypted files, of which FFmpeg lists the streams but decodes nothing, or noise."""

from __future__ import annotations

from typing import BinaryIO, Final

from deepscan.errors import UnsupportedInput
from deepscan.runtime.media import ebml
from deepscan.runtime.media.boxes import boxes, inside
from deepscan.runtime.media.file_bytes import FileBytes
from deepscan.runtime.media.file_end import ASF_HEAD

# Common encryption (ISO/IEC 23001-7), and Apple's older one.
ENCRYPTED_SAMPLES: Final = frozenset([b"encv", b"drmi"])
SAMPLE_DESCRIPTIONS: Final = (b"mdia", b"minf", b"stbl", b"stsd")
STSD_HEAD: Final = 8
VIDEO_TRACK, ENCODING_IS_ENCRYPTION = 1, 1
# Content encryption, its extended form, and its advanced form (ASF specification, 3.14, 3.15, 3.16).
ASF_ENCRYPTION: Final = [
    bytes.fromhex(identity)
    for identity in "fbb3112223bdd211b4b700a0c955fc6e 14e68a292226174cb935dae07ee9289c "
    "338505438169e6499b74ad12cb86d58c".split()
]
HEAD_BYTES: Final = 1 << 20
TS_SYNC, TS_HAS_CONTENT, TS_SCRAMBLED = 0x47, 0x10, 0x80
TS_PACKETS: Final = {188: 0, 192: 4, 204: 0}  # sizes, and offset of the transport packet in each
TS_PROOF: Final = 20
BLURAY_UNIT, BLURAY_PACKET, BLURAY_SYNC = 6144, 192, 4
PACK_START, VIDEO_PES = b"\0\0\1\xba", range(0xE0, 0xF0)


def refuse_encrypted(file: BinaryIO, *, stream_id: int | None = None) -> None:
    """Refuse a file whose video is encrypted; its position stays as it is.

    `stream_id` is FFmpeg's id of the video stream: the track of a file, the PID of a broadcast. None stands for any.

    Raises:
        UnsupportedInput: the video is encrypted.
    """
    if _is_encrypted(FileBytes(file), stream_id):
        raise UnsupportedInput("Its video is encrypted (DRM): decrypt the file first, and scan what comes of that.")


def _is_encrypted(data: FileBytes, stream_id: int | None) -> bool:
    head = data.at(0, HEAD_BYTES)
    if head[:4] == ebml.HEADER.to_bytes(4):
        return _matroska_is_encrypted(data)
    if head[:16] == ASF_HEAD:
        return any(one in head for one in ASF_ENCRYPTION)
    if head[:4] == PACK_START:
        return _program_stream_is_scrambled(head)
    if _bluray_is_encrypted(head):
        return True
    for size, begin in TS_PACKETS.items():
        if len(head) > 2 * size and {head[begin], head[begin + size], head[begin + 2 * size]} == {TS_SYNC}:
            return _transport_is_scrambled(head[begin:], size, stream_id)
    return _mp4_is_encrypted(data, stream_id)


def _mp4_is_encrypted(data: FileBytes, track: int | None) -> bool:
    for trak in inside(data.at, 0, data.size, b"moov", b"trak"):
        number = None
        for header in inside(data.at, trak.begin, trak.end, b"tkhd"):
            content = data.at(header.begin, 24)
            place = 20 if content[:1] == b"\1" else 12
            number = int.from_bytes(content[place : place + 4])
        descriptions = inside(data.at, trak.begin, trak.end, *SAMPLE_DESCRIPTIONS)
        kinds = {entry.kind for one in descriptions for entry in boxes(data.at, one.begin + STSD_HEAD, one.end)}
        if kinds & ENCRYPTED_SAMPLES and track in (None, number):
            return True
    return False


def _matroska_is_encrypted(data: FileBytes) -> bool:
    for segment in ebml.elements(data, 0, data.size):
        if segment.identity != ebml.SEGMENT:
            continue
        for part in ebml.elements(data, segment.begin, segment.end or data.size):
            if part.identity == ebml.CLUSTER:
                return False
            if part.identity == ebml.TRACKS:
                return any(_track_is_encrypted(data, one) for one in ebml.children(data, part, ebml.TRACK))
    return False


def _track_is_encrypted(data: FileBytes, entry: ebml.Element) -> bool:
    if VIDEO_TRACK not in [ebml.number(data, one) for one in ebml.children(data, entry, ebml.TRACK_TYPE)]:
        return False
    return any(
        ebml.number(data, kind) == ENCODING_IS_ENCRYPTION
        for encodings in ebml.children(data, entry, ebml.ENCODINGS)
        for encoding in ebml.children(data, encodings, ebml.ENCODING)
        for kind in ebml.children(data, encoding, ebml.ENCODING_TYPE)
    )


def _transport_is_scrambled(packets: bytes, size: int, pid: int | None) -> bool:
    """Tell whether most packets of the video are scrambled; of all streams if the video is unknown."""
    headers = [packets[place : place + 4] for place in range(0, len(packets) - 4, size)]
    full = [one for one in headers if one[0] == TS_SYNC and one[3] & TS_HAS_CONTENT]
    chosen = [one for one in full if pid == (one[1] & 0x1F) << 8 | one[2]] or full
    return 2 * sum(one[3] >= TS_SCRAMBLED for one in chosen) > len(chosen)


def _program_stream_is_scrambled(head: bytes) -> bool:
    """Tell whether most video packets of a DVD's stream are scrambled."""
    clear = scrambled = 0
    place = head.find(b"\0\0\1")
    while 0 <= place < len(head) - 7:
        if head[place + 3] in VIDEO_PES and head[place + 6] >> 6 == 0b10:
            scrambled += bool(head[place + 6] & 0x30)
            clear += not head[place + 6] & 0x30
            place += 6 + int.from_bytes(head[place + 4 : place + 6])
        place = head.find(b"\0\0\1", place + 3)
    return scrambled > clear


def _bluray_is_encrypted(head: bytes) -> bool:
    """Tell whether only the first packet of each unit is clear, as on a disc with AACS."""
    units = range(BLURAY_SYNC, min(len(head), TS_PROOF * BLURAY_UNIT) - BLURAY_UNIT, BLURAY_UNIT)
    if len(units) < 4 or any(head[place] != TS_SYNC for place in units):
        return False
    return sum(head[place + BLURAY_PACKET] == TS_SYNC for place in units) < len(units) / 2
