"""What recorded architectures predict of others, and which of them to test next."""
