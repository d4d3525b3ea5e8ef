"""A surrogate model: the robust accuracy of any architecture, predicted from recorded ones."""
