"""A validated snapshot compiled into an immutable plan."""
