"""Graph rules, one a file, applied until nothing changes."""
