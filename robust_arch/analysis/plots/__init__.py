"""The figures of the paper, one kind per file: matplotlib figures at their printed size, from recorded results."""
