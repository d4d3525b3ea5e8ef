"""Which architectures inside a budget to test next, and the study that tests them."""
