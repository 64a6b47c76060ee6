"""Where bytes can be kept."""
