"""The life of a study: plan, launch, follow, merge."""
