"""Models made of other models: blend and re-ranker."""
