"""The figures of a paper, a kind a file: matplotlib figures at the size they are printed, from recorded results."""
