"""From a Hydra configuration to checked objects; nothing further inside reads a configuration."""
