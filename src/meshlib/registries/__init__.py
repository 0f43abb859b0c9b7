"""Where snapshots come from, and where we register."""
