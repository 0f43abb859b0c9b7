"""The vocabulary: documents decoded and validated."""
