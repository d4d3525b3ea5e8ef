"""Published results: a table becomes a study that is read like the project's own."""
