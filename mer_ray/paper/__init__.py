"""The paper's tables, and what was published with it."""
