"""What a file is that is not what its name says, by its first bytes."""

HEAD = 512
"""Bytes that `what_it_is` wants to see."""

_BINARY = (
    (0, b"\x1f\x8b", "is gzip", "rename it so that it ends in .gz, or unpack it"),
    (0, b"PK\x03\x04", "is a zip archive", "unpack it"),
    (0, b"PK\x05\x06", "is an empty zip archive", "fetch it again"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it"),
    (0, b"Rar!", "is a RAR archive", "unpack it"),
    (257, b"ustar", "is a tar archive", "unpack it"),
    (0, b"BZh", "is compressed by bzip2", "unpack it (bunzip2)"),
    (0, b"\xfd7zXZ", "is compressed by xz", "unpack it (unxz)"),
    (0, b"\x28\xb5\x2f\xfd", "is compressed by zstd", "unpack it (unzstd)"),
    (128, b"DICM", "is a DICOM file", "give the folder of its series, or convert it"),
    (0, b"\x89HDF", "is HDF5 (MINC, Keras, MATLAB ...)", "convert it"),
    (0, b"NRRD", "is NRRD", "convert it"),
    (0, b"\x93NUMPY", "is a NumPy array", "convert it"),
    (0, b"%PDF", "is a PDF document", "fetch the file itself"),
)
_TEXT = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file", "run `git lfs pull` in its repository"),
    (b"/annex/objects/", "is a pointer of git-annex, not the file", "run `git annex get` in its repository"),
    (b"<?xml", "is an XML document, often what a server says instead of the file", "fetch the file itself"),
    (b"<", "is a web page, often one that asks for a login", "fetch the file itself"),
    (b"{", "is JSON text, often what a server says instead of the file", "fetch the file itself"),
    (b"[", "is JSON text, often what a server says instead of the file", "fetch the file itself"),
)


def what_it_is(head: bytes) -> str | None:
    """Says what a file is, and how to get at what is wanted.

    Args:
        head: Its first `HEAD` bytes, or all where it has fewer.

    Returns:
        Such as "it is a zip archive: unpack it"; None where the bytes say nothing.
    """
    if not head:
        return "it is empty: fetch it again"
    for place, mark, what, fix in _BINARY:
        if head[place : place + len(mark)] == mark:
            return f"it {what}: {fix}"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for mark, what, fix in _TEXT:
        if start.startswith(mark):
            return f"it {what}: {fix}"
    return None
