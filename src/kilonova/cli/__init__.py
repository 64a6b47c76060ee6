"""The command line. It composes and decides nothing."""
