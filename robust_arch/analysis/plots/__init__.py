"""The figures of the paper, one kind per file: matplotlib figures in their printed size, from recorded results."""
