"""The kit users test with."""
