"""The build: from a module to a bundle, stage by stage."""
