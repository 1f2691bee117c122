"""The errors a user can mend, and the one mistake that every room refuses."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(Exception):
    """Wrong settings or input.

    The message is one sentence that names the thing, the place and the next step.
    A job prints it without a traceback and exits with code 2.
    """


class StorageError(InputError, OSError):
    """Storage that refused, or still did not answer when asked again.

    An OSError to what can do without (a heartbeat), and a sentence and exit code 2 to a job.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Kubernetes and spot machines announce an end: what Ctrl-C cleans up is cleaned up for it too."""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A hint at the one of the names that is like it, if there is one."""
    near = get_close_matches(name, list(names), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


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
