"""URIs: what may name a place, and how places are put together. A local path, or ``s3://`` and nothing else."""

from __future__ import annotations

import os
import re

from mer_ray.errors import InputError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SERVED = ("s3", "file")


def is_s3(uri: str) -> bool:
    """True for an ``s3://`` URI."""
    return uri.startswith("s3://")


def join(uri: str, *names: str) -> str:
    """Append path segments to a URI."""
    return "/".join([uri.rstrip("/"), *names])


def absolute(uri: str) -> str:
    """The URI as any process on this machine can read it, whatever its working directory; no trailing slash.

    Raises:
        InputError: it carries credentials, or is of a scheme that is not served.
    """
    checked(uri)
    return uri.rstrip("/") if is_s3(uri) else os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def checked(uri: str) -> str:
    """The URI itself, which names a place that can be reached.

    Raises:
        InputError: another scheme's, which would otherwise pass for a local folder; or it carries credentials.
    """
    without_credentials(uri)
    found = _SCHEME.match(uri)
    scheme = found[1] if found else None
    if scheme not in (None, *_SERVED):
        raise InputError(f"{uri}: {scheme}:// is not served; give a local path, or s3:// for what speaks S3.")
    if uri.rstrip("/") == "s3:" or (scheme == "file" and not uri.startswith("file:///")):
        raise InputError(f"{uri}: names no place; give s3://BUCKET/PREFIX, a path, or file:///PATH.")
    return uri


def without_credentials(uri: str) -> str:
    """The URI itself, which ends in settings, rows and logs.

    Raises:
        InputError: it carries a user or a password, which the message does not repeat.
    """
    scheme, separator, rest = uri.partition("://")
    _, at, host = rest.partition("/")[0].rpartition("@")
    if separator and at:
        raise InputError(
            f"{scheme}://***@{host}: credentials do not belong in a URI; "
            "give them by the standard AWS variables or the machine's role."
        )
    return uri
