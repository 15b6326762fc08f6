"""TLS to a server: its options, its files, and why a handshake was refused, alike for every scheme.

Rules: an option that is not understood is an error, never a lowered check; what is wrong with a certificate or a file
is distinguished from an outage, since waiting does not mend it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from celeriac.errors import ConfigError

OPTIONS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
"""The options of a URL that are read here."""

FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_CHECKS: Mapping[str, Literal["required", "optional", "none"]] = {
    "required": "required",
    "optional": "optional",
    "none": "none",
    "cert_required": "required",
    "cert_optional": "optional",
    "cert_none": "none",
}
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_MODES = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}

_WRONG_HOST = {62, 64}
"""OpenSSL's ``X509_V_ERR_HOSTNAME_MISMATCH`` and ``X509_V_ERR_IP_ADDRESS_MISMATCH``."""

_NO_TLS = re.compile(r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST")
_OUR_CERTIFICATE = re.compile(r"ALERT.*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)")
_NO_AGREEMENT = re.compile(
    r"HANDSHAKE_FAILURE|PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|INSUFFICIENT_SECURITY|NO_CIPHER"
)


class Tls(msgspec.Struct, frozen=True):
    """What the options of a URL ask for.

    :param check: whether the server's certificate is checked.
    :param check_host: whether it must be for the host that is connected to.
    :param files: name of the option to path.
    """

    check: Literal["required", "optional", "none"] = "required"
    check_host: bool = True
    files: Mapping[str, str] = {}

    def lowered(self) -> str:
        """Return what these options leave unchecked, ``""`` where that is nothing."""
        if self.check == "none":
            return (
                "the server's certificate is not checked (the option ssl_cert_reqs is none): whoever is on the way can "
                "read and change all"
            )
        if not self.check_host:
            return (
                "a certificate for another host is taken (the option ssl_check_hostname is false): whoever has one can "
                "read and change all"
            )
        return ""


class BadFile(Exception):
    """A file that the options name cannot be used."""


def read_tls(options: Mapping[str, str]) -> Tls:
    """Return what the options of a URL say. Touches no file. Raises ``ConfigError``."""
    written = options.get("ssl_cert_reqs", "required")
    check = _CHECKS.get(written.lower())
    if check is None:
        raise ConfigError(f"ssl_cert_reqs={written!r} is not one of required, optional, none")
    flag = options.get("ssl_check_hostname", "true" if check == "required" else "false")
    check_host = _FLAGS.get(flag.lower())
    if check_host is None:
        raise ConfigError(f"ssl_check_hostname={flag!r} is not true or false")
    if check_host and check == "none":
        raise ConfigError(
            "ssl_check_hostname=true needs a certificate to look at: take out ssl_cert_reqs=none"
        )
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ConfigError("ssl_keyfile is the key of a certificate: give ssl_certfile too")
    files = {name: options[name] for name in FILES if name in options}
    for name, path in files.items():
        if not path:
            raise ConfigError(f"{name}= names no file: give its path, or take the option out")
    return Tls(check, check_host, files)


def open_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of a connection. Raises ``BadFile``, which names the option and the path."""
    for name, path in tls.files.items():
        try:
            with Path(path).open("rb"):
                pass
        except (OSError, ValueError) as error:
            raise BadFile(f"{name}={path}: {getattr(error, 'strerror', None) or error}") from error
    authorities = tls.files.get("ssl_ca_certs")
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (OSError, ssl.SSLError) as error:
        raise BadFile(f"ssl_ca_certs={authorities} holds no certificate that can be read: {error}") from error
    if (certificate := tls.files.get("ssl_certfile")) is not None:
        key = tls.files.get("ssl_keyfile")
        try:
            # Without a password given, the key's would be asked for on the terminal, for ever.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ssl.SSLError, ValueError) as error:
            named = f"ssl_certfile={certificate}" + (f", ssl_keyfile={key}" if key is not None else "")
            raise BadFile(f"{named} are no certificate with its key that can be read: {error}") from error
    context.check_hostname = tls.check_host
    context.verify_mode = _MODES[tls.check]
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def refusal(error: BaseException | None) -> str:
    """Return why one side refused the other's TLS, found in the error or what led to it; ``""`` for another error."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ssl.SSLError) and (text := _reason(error)):
            return text
        error = error.__cause__ or error.__context__
    return ""


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _WRONG_HOST:
            return f"its certificate is for another host ({error.verify_message}): write one that it names"
        return f"its certificate is not trusted ({error.verify_message}): check ssl_ca_certs"
    reason = error.reason or ""
    if _NO_TLS.search(reason):
        return f"what answers there speaks no TLS ({reason}): check the port and the scheme"
    if _OUR_CERTIFICATE.search(reason):
        return f"it does not take our certificate ({reason}): check ssl_certfile and ssl_keyfile"
    if _NO_AGREEMENT.search(reason):
        return (
            f"it and we have no TLS version or cipher in common, or it wants a certificate of ours ({reason})"
        )
    return ""
