"""A study's report, one HTML file that needs nothing else, and the parts it is made of."""
