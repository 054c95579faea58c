"""Reports: one tree of facts, and views of it."""
