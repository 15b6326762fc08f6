"""TLS to PostgreSQL: what libpq's options leave unchecked, and the files that they name.

Rules: the driver reads the options; what is wrong with a file is found here first, since the driver reports it as an
outage, and waiting does not mend it.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from celeriac.servers.tls import BadFile

FILES = ("sslrootcert", "sslcert", "sslkey")
_OF_THE_SYSTEM = "system"
_UNCHECKED = ("allow", "prefer", "require")


def lowered(tls: Mapping[str, str]) -> str:
    """Return what the options of a URL leave unchecked, ``""`` where that is nothing."""
    mode = tls.get("sslmode")
    if mode in _UNCHECKED:
        return (
            f"the server's certificate is not checked (the option sslmode is {mode}): whoever is on the way can read "
            "and change all"
        )
    if mode == "verify-ca":
        return (
            "a certificate for another host is taken (the option sslmode is verify-ca): whoever has one can read and "
            "change all"
        )
    return ""


def check_files(tls: Mapping[str, str]) -> None:
    """Raise ``BadFile``, which names the option and the path, for a file that cannot be used."""
    files = {name: tls[name] for name in FILES if name in tls and tls[name] != _OF_THE_SYSTEM}
    for name, path in files.items():
        try:
            with Path(path).open("rb"):
                pass
        except (OSError, ValueError) as error:
            raise BadFile(f"{name}={path}: {getattr(error, 'strerror', None) or error}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if (authorities := files.get("sslrootcert")) is not None:
        try:
            context.load_verify_locations(authorities)
        except (OSError, ssl.SSLError) as error:
            raise BadFile(
                f"sslrootcert={authorities} holds no certificate that can be read: {error}"
            ) from error
    if "sslcert" in files:
        certificate, key = files["sslcert"], files.get("sslkey")
        try:
            # Without a password given, the key's would be asked for on the terminal, for ever.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ssl.SSLError, ValueError) as error:
            named = f"sslcert={certificate}" + (f", sslkey={key}" if key is not None else "")
            raise BadFile(f"{named} are no certificate with its key that can be read: {error}") from error
