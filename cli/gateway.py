"""`fraudstream gateway`: the HTTP interface."""

import ssl
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from pydantic import ValidationError

from cli.terminal import UserError, out
from models.signing import KeyFileError
from serving.console.app import mount
from serving.gateway.app import create_app, log_as_json
from serving.gateway.settings import GatewaySettings
from serving.security.audit import AuditError

app = typer.Typer()


@app.command()
def gateway(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate chain, for HTTPS.", show_default=False)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key.", show_default=False)] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(help="Let in only clients with a certificate of this CA (mTLS).", show_default=False),
    ] = None,
) -> None:
    """Serve the HTTP interface and the console, with one worker; settings are read from the environment."""
    if (tls_cert is None) != (tls_key is None) or (client_ca is not None and tls_cert is None):
        raise UserError("--tls-cert and --tls-key come together, and --client-ca needs them")
    try:
        settings = GatewaySettings()
        serving = create_app(settings)
        if settings.gateway_console:
            mount(serving)
    except (ValidationError, KeyFileError, AuditError) as error:
        raise UserError(f"{error}; `fraudstream keys init` makes the keys") from error
    services = serving.state.services
    log_as_json(services.pseudonyms)
    out.print(f"http{'s' if tls_cert else ''}://{host}:{port}/openapi.json", highlight=False, soft_wrap=True)
    uvicorn.run(
        serving,
        host=host,
        port=port,
        workers=1,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=16_384,
        timeout_graceful_shutdown=15,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
        ssl_ca_certs=None if client_ca is None else str(client_ca),
        ssl_cert_reqs=ssl.CERT_NONE if client_ca is None else ssl.CERT_REQUIRED,
    )
