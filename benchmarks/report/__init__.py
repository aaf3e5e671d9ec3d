"""Report pages: one JSON document is the master, everything else is a view of it."""
