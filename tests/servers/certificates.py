"""Certificates for the occasion, beside those that the servers have."""

from pathlib import Path

from tests.servers.redis import make_certificate


def stranger(directory: Path) -> tuple[Path, Path]:
    """Return a certificate that vouches for nobody here, and its key."""
    certificate, key = directory / "stranger.crt", directory / "stranger.key"
    if not key.exists():
        make_certificate(certificate, key)
    return certificate, key
