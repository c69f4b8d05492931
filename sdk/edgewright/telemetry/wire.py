"""A protobuf message taken apart by hand, for a reader that needs a few fields of many.

To parse a payload and look at all of it costs several times what it costs to step over what is not wanted. Source
of the format: protobuf documentation, "Encoding".
"""

from __future__ import annotations


def taken_apart(message: bytes) -> tuple[bytes, list[bytes]]:
    """The tags of the fields that hold bytes, one after the other, and what they hold.

    Numbers under 128 are stepped over. Raises `ValueError` or `IndexError` for any other message, among them
    well-formed ones that nobody needs.
    """
    tags, found, at, end = bytearray(), [], 0, len(message)
    while at < end:
        tag, length = message[at], message[at + 1]
        at += 2
        if length > 127:
            length += (message[at] << 7) - 128
            at += 1
        if tag & 0x87 == 2 and length < 1 << 14:
            tags.append(tag)
            found.append(message[at : at + length])
            at += length
        elif tag & 0x87 or length > 127:
            raise ValueError("a field of another kind")
    if at != end:
        raise ValueError("cut short")
    return bytes(tags), found
