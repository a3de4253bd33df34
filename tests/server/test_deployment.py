"""The files for deployment: what they name is there."""

import re

import pytest
import yaml

from stages.definitions import TOPICS
from support import ROOT

FOLDER = ROOT / "configs" / "serving"
FLAGS = {name for names in TOPICS.values() for name in names} | {"flagfile"}


@pytest.mark.parametrize("name", ["Dockerfile", "quickstart.Dockerfile"])
def test_images_copy_what_is_there_and_run_a_stage(name):
    lines = re.sub(r"\\\n", " ", (FOLDER / name).read_text("utf-8")).splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert steps[0] == ["FROM", "python:3.12-slim"]
    for kind, rest in steps:
        assert kind in {"FROM", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD", "ENV"}
        if kind == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1])
    (entry,) = (yaml.safe_load(rest) for kind, rest in steps if kind == "ENTRYPOINT")
    stage = entry[entry.index("-m") + 1].split(".")
    assert ROOT.joinpath(*stage).with_suffix(".py").is_file()
    for flag in re.findall(r"--([a-z_]+)=", " ".join(entry)):
        assert flag in FLAGS


def test_the_deployment_probes_what_is_served():
    deployment, service = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text("utf-8"))
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    for argument in container["args"]:
        assert argument.split("=")[0].removeprefix("--") in FLAGS
    paths = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"/readyz", "/healthz"}
    grace = next(int(text.split("=")[1]) for text in container["args"] if text.startswith("--grace_s"))
    assert pod["spec"]["terminationGracePeriodSeconds"] > grace + 5
    labels = pod["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert service["spec"]["selector"].items() <= labels


def test_the_batching_of_tensorflow_serving_is_text_of_its_kind():
    lines = [line for line in (FOLDER / "batching.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert lines
    assert all(re.fullmatch(r"\w+ \{ value: \d+ \}", line) for line in lines)
