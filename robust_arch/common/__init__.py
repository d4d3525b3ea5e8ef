"""What every room may use: files, identity, randomness, paths, statistics, console and signals."""
