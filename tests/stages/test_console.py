"""What the stages print, on any console."""

import io
import os
import sys
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import common
from support import ENVIRONMENT
from support.stages import begin, finish


@pytest.fixture(autouse=True)
def _own_handlers():
    with warnings.catch_warnings():
        common.prepare_console()
        yield


@given(st.text(st.characters(codec="utf-8")), st.sampled_from(["ascii", "cp1252", "latin-1", "shift_jis", "utf-8"]))
def test_any_text_is_written_in_any_encoding_and_nothing_is_lost(text, encoding):
    written = text.encode(encoding, "spelled").decode(encoding)
    for character in text:
        try:
            expected = character.encode(encoding).decode(encoding)
        except UnicodeEncodeError:
            expected = common._SPELLINGS.get(character) or character.encode("ascii", "backslashreplace").decode("ascii")
        assert written.startswith(expected)
        written = written[len(expected) :]
    assert not written


def test_figures_stay_readable_on_a_console_without_their_signs():
    assert "52.8 ± 0.9 … ∞ ✓".encode("ascii", "spelled") == b"52.8 +- 0.9 ... inf \\u2713"
    assert "52.8 ± 0.9 ✓".encode("cp1252", "spelled") == b"52.8 \xb1 0.9 \\u2713"
    assert "\udce9".encode("utf-8", "spelled") == b"\\udce9"  # a folder's name that is not UTF-8


def test_notes_are_one_line_and_warnings_for_programmers_are_left_alone(capsys):
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        common.prepare_console()
        warnings.warn("epsilon is large:\n  did you mean 8/255?", UserWarning, stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: epsilon is large: did you mean 8/255?\n"
    assert [str(other.message) for other in others] == ["old"]


def test_a_note_is_told_once_however_often_it_is_given(capsys, monkeypatch):
    monkeypatch.setattr(common, "_told", set())
    for text in ("none's accuracy", "none's accuracy", "pgd's accuracy"):
        with warnings.catch_warnings():  # After which Python would show all of them again.
            warnings.simplefilter("always")
            warnings.warn(text, UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: none's accuracy\nwarning: pgd's accuracy\n"


def test_tensorflow_is_loaded_without_its_notes_and_with_its_errors(monkeypatch, capfd):
    def load(name):
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
        os.write(2, b"I0000 00:00:1795626091.673227   17372 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"E0000 00:00:1795626091.673227   17372 cuda.cc:1] failed call to cuInit: UNKNOWN ERROR (303)\n")
        os.write(2, b"E0000 00:00:1795626091.673227   17372 cuda.cc:1] failed call to cuInit: no such device (100)\n")
        raise ImportError(name)

    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(common.importlib, "import_module", load)
    with pytest.raises(ImportError):
        common.load_tensorflow()
    os.write(2, b"as before\n")
    told = capfd.readouterr().err.splitlines()
    assert [line.rpartition(": ")[2] for line in told] == ["no such device (100)", "as before"]


def test_standard_streams_never_fail(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    common.prepare_console()
    common.say("52.8 ± 0.9")
    assert written.getvalue() == b"52.8 +- 0.9\n"


def test_stages_refuse_another_backend_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(ENVIRONMENT, "KERAS_BACKEND", "torch")
    _, messages = finish(begin("data", "--dataset=digits", f"--run_dir={tmp_path}/run"), status=2)
    assert messages.startswith("error: `KERAS_BACKEND` should be tensorflow")
    assert messages.count("\n") == 1
    assert not list(tmp_path.iterdir())
