"""Tells Kubernetes, systemd and the like whether a worker lives and is ready, from a thread of its own."""
