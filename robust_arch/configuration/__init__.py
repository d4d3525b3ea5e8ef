"""From a Hydra configuration to checked objects; the rest of the package reads no configuration."""
