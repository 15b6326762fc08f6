"""What only the Redis broker and backend have."""
