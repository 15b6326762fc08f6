"""What sends tasks and waits for results."""
