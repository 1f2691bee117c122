"""Where songs come from: manifests, and what is known of their truth."""
