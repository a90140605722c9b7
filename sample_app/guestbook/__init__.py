"""A guest book that shows, live, which release of itself is being served."""
