"""Serves an export over HTTP, by TensorFlow Serving's REST interface.

python -m stages.serve --export=runs/quickstart/learn2perturb/export --port=8501
curl localhost:8501/v1/models/learn2perturb
curl -d '{"instances": [...]}' localhost:8501/v1/models/learn2perturb:predict

POST /v1/models/NAME:predict takes {"instances": [image, ...]} or {"inputs": {"images": [image, ...]}}, perhaps with
"signature_name": serving_default (numbers from 0 to 1) or serve_uint8 (0 to 255); clients of TensorFlow Serving work
unchanged. GET /v1/models/NAME and /metadata describe it, /healthz and /readyz are for probes, /metrics for Prometheus.
NAME is --name, or that of the run. Requests that wait at the same time share a pass, in which a randomized model draws
noise of its own for every image. SIGTERM ends it once all requests are answered.
"""

from __future__ import annotations

from l2p_tf.types import Interrupted, UserError
from stages import common, definitions, settings

definitions.show("serve")
_LOG_SECONDS = 2.0
"""Maximum time at exit for the rest of the log to be written."""


def main(_: list[str]) -> None:
    flags = settings.read()
    if len(flags.export) != 1:
        raise UserError("`--export` should be the folder of an export, such as runs/quickstart/pgd/export.")
    options = flags.serving
    settings.start(flags)
    try:
        import uvicorn

        from l2p_tf.server.app import Server
        from l2p_tf.server.log import log
    except ImportError as error:
        raise UserError(f"Serving needs further packages: pip install '.[serve]' ({error})") from error
    from l2p_tf.server.model import Model

    model = Model(flags.export[0], options.seeded)
    folder = model.folder.absolute()
    named = folder.parent if folder.name == "export" and folder.parent.name else folder
    name = flags.run_name() if flags.name else named.name
    config = uvicorn.Config(
        Server(model, name, options).app, options.host, options.port, log_config=None, access_log=False,
        timeout_graceful_shutdown=int(options.grace_s), lifespan="on",
    )  # fmt: skip
    address = f"http://{options.host}:{options.port}/v1/models/{name}"
    log("start", model=name, address=address, draws=model.card["draws"])
    try:
        uvicorn.Server(config).run()
    except (Interrupted, KeyboardInterrupt):
        log("end", model=name)  # All requests are answered; then the signal was passed on.
    except SystemExit as error:
        raise UserError(f"`--port` should be free on {options.host}. Received: {options.port}") from error
    finally:
        log.drain(_LOG_SECONDS)


if __name__ == "__main__":
    common.run(main)
