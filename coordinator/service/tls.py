"""The server's certificate in TLS handshakes, renewed while it serves."""

from __future__ import annotations

import threading
from typing import Any

import grpc

from rootstock.common.identity.certificates import half_life, to_pem
from rootstock.common.identity.credentials import Credentials
from rootstock.coordinator.identity.authority import NetAuthority


class ServerCertificate:
    """What listeners present, looked at in every handshake: at half-life it is made anew."""

    def __init__(self, authority: NetAuthority) -> None:
        self._authority = authority
        self._current = authority.server()
        self._lock = threading.Lock()

    def listener(self, *, members_only: bool) -> grpc.ServerCredentials:
        """Return the credentials of one listener.

        Members present a certificate of the net's authority in the handshake; anyone else's
        connection is closed in it.
        """
        root = to_pem(self._authority.certificate) if members_only else None
        presented = self._current

        def configuration(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
            pair = (credentials.key_pem, credentials.chain_pem)
            return grpc.ssl_server_certificate_configuration([pair], root)

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal presented
            current = self._fresh()
            if current is presented:
                return None
            presented = current
            return configuration(current)

        fetcher: Any = renewed  # None is "as before", which the stubs do not say
        return grpc.dynamic_ssl_server_credentials(
            configuration(presented), fetcher, require_client_authentication=members_only
        )

    def _fresh(self) -> Credentials:
        with self._lock:  # handshakes of two listeners
            if self._authority.clock() >= half_life(self._current.certificate):
                self._current = self._authority.server()
            return self._current
