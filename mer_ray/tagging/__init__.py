"""A model and words to ranked tags."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer_ray.tagging.ranking import Tagger

__all__ = ["Tagger"]


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: the settings of this room need no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mer_ray.tagging.ranking import Tagger

    return Tagger
