"""Numbers of untrained networks beside the robust accuracy of the trained ones."""
