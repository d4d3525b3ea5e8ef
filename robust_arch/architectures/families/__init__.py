"""One module a family; its name is the value of `arch.family`, its FAMILY the implementation."""
