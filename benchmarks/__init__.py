"""What the mesh costs. Run by `scripts/bench`."""
