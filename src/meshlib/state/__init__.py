"""What was observed of endpoints and clusters; survives a plan swap."""
