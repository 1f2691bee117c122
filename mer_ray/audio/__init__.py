"""Bytes of a song to windows, or a named reason why not.

track = decode_windows("song.mp3")      # or bytes, or an open binary file
track.windows                           # [w, samples] float32, mono
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer_ray.audio.decoding import DecodedTrack, decode_windows
    from mer_ray.audio.fetching import fetch
    from mer_ray.audio.formats import AudioError

__all__ = ["AudioError", "DecodedTrack", "decode_windows", "fetch"]

_HOMES = {"decode_windows": "decoding", "DecodedTrack": "decoding", "fetch": "fetching", "AudioError": "formats"}


def __getattr__(name: str) -> Any:
    """Imported when first asked for: who only starts decoders needs no codecs."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
