"""Events: what a worker sends to monitors about its tasks and itself."""
