"""What users register in files, modules and packages of their own."""

import json
import os
import re

import numpy as np
import pytest

from l2p_tf import plugins
from l2p_tf.attacks import ATTACKS, PGD
from l2p_tf.types import UserError
from support import ROOT, foreign
from support.models import residual
from support.stages import error, python, stage

PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
FADE = next(part.split("```")[0] for part in PAGE.split("```python\n")[1:] if "class Fade" in part)
MORE = '''
import dataclasses
from l2p_tf.defenses.base import DEFENSES
from l2p_tf.defenses.pgd import PGDTraining

@DEFENSES.register("mine_{number}")
@dataclasses.dataclass(frozen=True)
class Mine(PGDTraining):
    """PGD training by another name."""
'''
DATA = ("--dataset=digits", "--limit_train=120", "--limit_test=20")


@pytest.fixture
def model(tmp_path):
    """Flags of a run of a small model."""
    residual(classes=10).save(tmp_path / "mine.keras")
    run = f"--run_dir={tmp_path / 'runs'}"
    stage("importer", *DATA, run, f"--model_file={tmp_path / 'mine.keras'}", "--input_range=0..1")
    return (run, "--name=mine", "--checks=0")


def test_the_readmes_attack_is_one_like_all_others(model, tmp_path):
    file = tmp_path / "fade.py"
    file.write_text(FADE, "utf-8")
    how = (f"--plugins={file}", "--attacks=fade(steps=5)")
    assert "fade: Fades images toward gray" in stage("attack", how[0], "--attacks=help").stdout
    assert "Unknown attack 'fade'" in error("attack", *model, how[1])
    stage("attack", *model, *how)
    folder = tmp_path / "runs" / "mine" / "attack"
    manifest = json.loads((folder / "manifest.json").read_text())
    (options,) = manifest["options"]["attacks_options"]
    assert re.fullmatch(r"fade.py [0-9a-f]{16}", options["plugin"])
    records = json.loads((folder / "results.json").read_text())["records"]
    assert [record["attack"] for record in records] == ["clean", "fade(steps=5)"]
    assert records[1]["correct"] <= records[0]["correct"]
    # Another attack by the same name is another.
    file.write_text(FADE.replace("0.5", "0.25"), "utf-8")
    stage("attack", *model, *how)
    records = json.loads((folder / "results.json").read_text())["records"]
    assert len(records) == 3


def test_it_does_what_it_says():
    try:
        exec(compile(FADE, "fade.py", "exec"), {"__name__": "fade"})
        attack = ATTACKS.parse("fade(steps=4)")
        images = np.full((3, 8, 8, 1), 0.9, np.float32)
        labels = np.asarray(foreign.made()(images)).argmax(-1)
        found = attack(foreign.made(), images, labels)
        shares = (0.9 - found.adversarial.max((1, 2, 3))) / 0.4
        assert set(np.round(4 * shares, 3)) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    finally:
        ATTACKS._classes.pop("fade", None)


def test_a_file_is_loaded_once_and_a_module_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "my_defense.py").write_text(MORE.format(number=1))
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("from my_package import inner")
    (package / "inner.py").write_text(MORE.format(number=2))
    monkeypatch.syspath_prepend(str(tmp_path))
    from l2p_tf.defenses import DEFENSES

    DEFENSES.names()
    try:
        plugins.load([str(tmp_path / "my_defense.py"), "my_package"])
        plugins.load([str(tmp_path / "my_defense.py"), "my_package"])
        first, second = (DEFENSES.parse(f"mine_{number}").options()["plugin"] for number in (1, 2))
        assert first.startswith("my_defense.py ")
        assert second.startswith("my_package ")
        assert "plugin" not in DEFENSES.parse("pgd").options()
        assert "plugin" not in PGD().options()
    finally:
        for number in (1, 2):
            DEFENSES._classes.pop(f"mine_{number}", None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.py", None, "no such file"),
        ("no_such_module", None, "cannot be imported"),
        ("a..b", None, "cannot be imported"),
        ("bad.py", "1 / 0", "'bad.py' cannot be loaded: ZeroDivisionError"),
        ("syntax.py", "def", "'syntax.py' cannot be loaded: SyntaxError"),
        ("leaves.py", "raise SystemExit(0)", "'leaves.py' cannot be loaded: SystemExit"),
        (
            "twice.py",
            "from l2p_tf.attacks.pgd import PGD\nfrom l2p_tf.attacks.base import ATTACKS\nATTACKS.register('pgd')(PGD)",
            "registered twice",
        ),
    ],
)
def test_what_cannot_be_loaded_is_told_in_a_line(name, text, message, tmp_path):
    ATTACKS.names()
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        plugins.load([str(tmp_path / name) if name.endswith(".py") else name])
    assert plugins.current() == ""


def test_bad_plugins_of_a_stage_are_a_line(tmp_path):
    assert "no such file" in error("attack", f"--run_dir={tmp_path}", "--plugins=nowhere.py")


def test_installed_packages_name_theirs(tmp_path):
    (tmp_path / "faded.py").write_text(FADE, "utf-8")
    folder = tmp_path / "faded-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: faded\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[l2p_tf.plugins]\nfaded = faded\n")
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    code = (
        "from l2p_tf.attacks import ATTACKS, Fade; print(ATTACKS.help('help(fade)'), ATTACKS.parse('fade').options())"
    )
    printed = python(code, PYTHONPATH=path).stdout
    assert "Fades images" in printed
    assert "'plugin': 'faded " in printed
