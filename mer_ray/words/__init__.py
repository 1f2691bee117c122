"""Words to phrases to embeddings to clusters."""

from mer_ray.words.embedding import embed_labels
from mer_ray.words.labelspace import cluster_labels

__all__ = ["cluster_labels", "embed_labels"]
