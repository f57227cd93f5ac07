"""What TLS tells the handshake: bytes that only the two ends of one channel share.

The only module that knows TLS; must not know the handshake. Invariant: without TLS the binding is empty, and two ends
that talk through somebody in the middle never get the same binding.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl


def channel_binding(transport: asyncio.BaseTransport, *, dialed: bool, own_certificate_der: bytes = b"") -> bytes:
    """The server's end-point certificate hash (RFC 5929, tls-server-end-point), or nothing on a plain connection.

    Args:
        dialed: whether this end dialled, so that the certificate is the peer's.
        own_certificate_der: the certificate that this end presents when it accepted.
    """
    channel = transport.get_extra_info("ssl_object")
    if channel is None:
        return b""
    assert isinstance(channel, ssl.SSLObject | ssl.SSLSocket)
    certificate = channel.getpeercert(binary_form=True) if dialed else own_certificate_der
    return hashlib.sha256(certificate or b"").digest()
