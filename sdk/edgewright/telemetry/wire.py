"""A protobuf message taken apart by hand, for a reader that needs a few fields of many.

To parse a payload and look at all of it costs several times what it costs to step over what is not wanted. Source
of the format: protobuf documentation, "Encoding".
"""

from __future__ import annotations


def taken_apart(message: bytes, first: int, rest: int) -> list[bytes]:
    """What the fields hold, of which the first has one tag and every other has another one.

    Numbers under 128 are stepped over. Raises `ValueError` or `IndexError` for any other message, among them
    well-formed ones that nobody needs.
    """
    found, at, end, tag = list[bytes](), 0, len(message), first
    while at < end:
        said, length = message[at], message[at + 1]
        at += 2
        if length > 127:
            length += (message[at] << 7) - 128
            at += 1
        if said == tag and length < 1 << 14:
            found.append(message[at : at + length])
            at += length
            tag = rest
        elif said & 0x87 or length > 127:
            raise ValueError("a field of another kind")
    if at != end:
        raise ValueError("cut short")
    return found


def inside(message: bytes, tag: int, at: int = 0) -> int:
    """Where begins what a field of this tag holds, which is the last of the message and begins at `at`.

    Raises `ValueError` or `IndexError` where it does not.
    """
    said, length = message[at], message[at + 1]
    begin = at + 2
    if length > 127:
        length += (message[begin] << 7) - 128
        begin += 1
    if said != tag or length >= 1 << 14 or begin + length != len(message):
        raise ValueError("a field of another kind")
    return begin
