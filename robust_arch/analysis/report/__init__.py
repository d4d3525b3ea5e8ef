"""A study's report: one self-contained HTML file, and its parts."""
