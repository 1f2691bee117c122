"""Words to phrases to embeddings to clusters."""
