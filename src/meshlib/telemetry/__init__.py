"""What is told of each call."""
