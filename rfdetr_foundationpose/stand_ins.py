"""What lies under a file's name in the place of its data: a pointer of Git LFS, a web page, nothing."""

from __future__ import annotations

HEAD = 64
"""So many bytes from the beginning of a file tell."""


def stand_in(head: bytes) -> str:
    """What a file is that begins so, and the remedy, as the end of "FILE cannot be read: "; "" where it may be what its name says."""
    if not head:
        return "it is empty; was it copied in full?"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself; run 'git lfs pull' where it came from"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, as hosts send it when a download needs a click or a login; download the file itself"
    return ""
