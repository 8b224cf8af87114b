"""TLS of the link as the response network speaks it: whose certificate it believes, and which one it shows."""

import ssl

from configuration.settings import ResponseSettings
from models.errors import ConfigurationError


def client_tls(settings: ResponseSettings) -> ssl.SSLContext | None:
    """TLS 1.3 with the certificates of the settings; None where nothing is set, and the public authorities count.

    Raises `ConfigurationError` naming the variable whose file cannot be used.
    """
    if settings.link_ca is None and settings.link_certificate is None:
        return None
    variable, file = "AIRLOCK_RESPONSE_LINK_CA", settings.link_ca
    try:
        context = ssl.create_default_context(cafile=file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if settings.link_certificate is not None and settings.link_certificate_key is not None:
            variable, file = "AIRLOCK_RESPONSE_LINK_CERTIFICATE", settings.link_certificate
            context.load_cert_chain(settings.link_certificate, settings.link_certificate_key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(f"{variable}: {file} cannot be used: {error}") from None
    return context
