"""Words to phrases to embeddings to clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer_ray.words.clusters import cluster_labels
    from mer_ray.words.embedding import embed_labels

__all__ = ["cluster_labels", "embed_labels"]


def __getattr__(name: str) -> Any:
    """Import what a notebook asks for as it asks: a list of words takes no numpy."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'clusters' if name == 'cluster_labels' else 'embedding'}"), name)
