"""Tells Kubernetes, systemd and the like whether a worker lives and is ready, beside its event loop."""
