"""What every room may use: files, identity, randomness, paths, plain values, statistics and the process's set-up."""
