"""The errors a user can mend."""

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
