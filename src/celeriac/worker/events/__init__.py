"""Events: what a worker tells monitors of its tasks and of itself."""
