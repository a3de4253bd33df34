"""Options of serving, from which the flags of the stage are derived."""

from __future__ import annotations

import dataclasses

from l2p_tf.options import StageOptions, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeOptions(StageOptions):
    """Where and how an export is served.

    Raises:
      UserError: an invalid value.
    """

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 for all of the machine's.")
    port: int = option(8501, "Port of the REST interface.", low=1, high=65535)
    batch_images: int = option(64, "Most images of waiting requests that are answered in one pass.", low=1)
    batch_wait_ms: float = option(1.0, "Milliseconds that a request waits for others to share its pass.", low=0)
    queue_images: int = option(4096, "Images that may wait; a request beyond is refused (503).", low=1)
    body_mb: float = option(32.0, "Largest body of a request, in megabytes (413 beyond).", above=0)
    timeout_s: float = option(30.0, "Seconds after which a request is given up (504).", above=0)
    grace_s: float = option(30.0, "Seconds that requests have to end when the server is stopped.", low=0)
    seeded: bool = option(
        False, "Serve serve_seeded too. Who may choose the seed knows the noise, which makes attacks easier."
    )
