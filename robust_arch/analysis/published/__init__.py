"""Results of others: a published table becomes a study that is read like the project's own."""
