"""The one background thread and the one writer."""
