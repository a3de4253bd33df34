import ast
import graphlib
import re
import sys
import tomllib

import pytest

from l2p_tf.attacks import ATTACKS
from l2p_tf.data import DATASETS
from l2p_tf.defenses import DEFENSES
from stages import configs
from stages.definitions import TOPICS
from support import ROOT
from support.models import images_and_labels, residual

# Each may import what stands above it, and itself.
LAYERS = [
    ["types"],
    ["environment"],
    ["options", "contract", "plugins"],
    ["registry", "loops", "progress", "radii", "schema"],
    ["files", "manifest"],
    ["sharing"],
    ["artifacts"],
    ["data"],
    ["layers"],
    ["observation"],
    ["classifier"],
    ["models"],
    ["inference", "arrays", "devices"],
    ["attacks"],
    ["training"],
    ["defenses"],
    ["fitting", "imported"],
    ["evaluation"],
    ["certification"],
    ["reporting"],
    ["experiments"],
    ["formats"],
    ["serving", "api"],
    ["server"],
]
HEIGHT = {f"l2p_tf.{name}": height for height, names in enumerate(LAYERS) for name in names}
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = [p for folder in ("l2p_tf", "stages") for p in sorted((ROOT / folder).rglob("*.py"))]


def height(module):
    parts = module.split(".")
    for length in range(len(parts), 1, -1):
        if ".".join(parts[:length]) in HEIGHT:
            return HEIGHT[".".join(parts[:length])]
    return None


def imports(path):
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import in {package}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_each_layer_imports_only_what_is_above_it(path):
    module = module_of(path)
    for name in imports(path):
        assert not (name.startswith("stages") and module.startswith("l2p_tf")), f"{module} imports {name}"
        assert not (name.startswith(("absl.flags", "absl.app")) and module.startswith("l2p_tf")), (
            f"{module} knows flags: {name}"
        )
        if name.startswith("l2p_tf.") and module.startswith("l2p_tf."):
            mine, its = height(module), height(name)
            assert mine is not None, f"{module} has no place in the house"
            assert its is not None, f"{name} has no place in the house"
            assert its <= mine, f"{module} imports {name}, which stands below it"


def folder(module):
    return ".".join(module.split(".")[:2]) if module.startswith("l2p_tf.") else module.split(".")[0]


@pytest.mark.parametrize("of", [str, folder], ids=["files", "folders"])
def test_nothing_imports_itself_in_a_circle(of):
    files = {module_of(path): path for path in MODULES}
    graph = {of(name): set() for name in files}
    for importer, path in files.items():
        for name in imports(path):
            imported = name if name in files else name.rpartition(".")[0]
            if imported in files and of(imported) != of(importer):
                graph[of(importer)].add(of(imported))
    graphlib.TopologicalSorter(graph).prepare()  # Raises CycleError with the circle.


def test_reading_results_needs_no_tensorflow():
    for path in (ROOT / "l2p_tf" / "reporting").glob("*.py"):
        assert not any(name.split(".")[0] in ("tensorflow", "keras") for name in imports(path)), path


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_stay_small(path):
    assert len(path.read_text("utf-8").splitlines()) <= 400


TESTS = sorted((ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_tests_share_is_in_support_and_they_stay_small(path):
    assert not any(part.startswith("test_") for name in imports(path) for part in name.split(".")[:-1]), path
    most = 400 if "support" in path.parts else 500
    assert len(path.read_text("utf-8").splitlines()) <= most


# In brackets, lest it find itself. `labeledby` is HTML.
BRITISH = re.compile(
    r"defen[c]e|(colo|behavio|neighbo|favo|hono|flavo)[u]r|\bgr[e]y|\b(cent|met|fib)[r]e(d|s)?\b|i[s]ations?\b|analy[s]e"
    r"|(label|cancel|model|signal|travel)[l](ed\b|ing)|artefa[c]t"
    r"|(random|normal|regular|general|initial|minim|maxim|optim|organ|real|recogn|summar|visual|parametr|quant|penal|linear)"
    r"i[s](e|ed|es|er|ers|ing)\b",
    re.IGNORECASE,
)


SPELLED = (".py", ".flags", ".toml", ".html", ".js", ".json", ".ipynb", ".csv")


def test_spelling_is_american():
    files = list(PAGES)
    for name in ("l2p_tf", "stages", "tests", "benchmarks", "docs"):
        files += [p for p in (ROOT / name).rglob("*") if p.suffix in SPELLED]
    for path in files:
        if path.name != "citations.json":  # Titles are spelled as they were printed.
            assert not BRITISH.findall(path.read_text("utf-8")), path


def test_a_wheel_holds_all_files_of_the_package():
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    package = ROOT / "l2p_tf"
    held = {path for pattern in shipped["l2p_tf"] for path in package.glob(pattern)}
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert held == files


def test_every_stage_explains_itself():
    stages = [path for path in (ROOT / "stages").glob("*.py") if "\nif __name__" in path.read_text("utf-8")]
    assert len(stages) == 9
    for path in stages:
        text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert f"python -m stages.{path.stem}" in text
    assert sys.version_info >= (3, 11)


def program(page, number):
    return (ROOT / page).read_text("utf-8").split("```python\n")[1 + number].split("```")[0]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("page", "number", "said"), [("README.md", 0, "AutoAttack"), ("docs/own-model.md", 1, "mean l2")]
)
def test_the_documented_programs_run(page, number, said, capsys):
    images, labels = images_and_labels(12, (8, 8, 1), 4)
    given = {"model": residual(), "images": images, "labels": labels}
    given |= {"train_images": images, "train_labels": labels}
    exec(compile(program(page, number), page, "exec"), given)
    assert said in capsys.readouterr().out


def test_two_pages_show_the_same_program():
    one, other = (ast.dump(ast.parse(program(page, 0))) for page in ("README.md", "docs/own-model.md"))
    assert one == other


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_name_flags_files_and_specs_there_are(page):
    text = re.sub(r"^(?:mkdocs|jupyter|pip) .*$", "", page.read_text("utf-8"), flags=re.MULTILINE)  # Flags of theirs.
    text = re.sub(r"`(?:jupyter|ruff) [^`]*`|ruff .*", "", text)
    defined = {"flagfile", "logdir", "help", *(name for names in TOPICS.values() for name in names)}
    for flag in re.findall(r"--([a-z_]+)", text):
        assert flag in defined, flag
    for spec in re.findall(r"--dataset='(?!help)([^']+)'", text):
        DATASETS.parse(spec)
    for specs in re.findall(r"--attacks='(?!help)([^']+)'", text):
        if "fade" not in specs:  # That of the page on extending.
            ATTACKS.parse_list(specs)
    for specs in re.findall(r"--defense='(?!help)([^']+)'", text):
        DEFENSES.parse_list(specs)
    for file in re.findall(r"(?:benchmarks|docs/tools|tests(?:/\w+)+)/\w+\.py|configs/cluster/[\w.]+", text):
        assert (ROOT / file).is_file(), file
    for module in re.findall(r"python -m (stages\.\w+)", text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module
    for name in set(re.findall(r"--config=([\w./]+)", text)) - {"help", "NAME"}:
        configs.path(name)
    for name in set(re.findall(r"--experiment=([\w./]+)", text)) - {"help"}:
        assert (configs.FOLDER / "experiments" / f"{name}.toml").is_file(), name
    assert not re.findall(r"^[A-Z_]{8,}$", text, re.MULTILINE)


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 140
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).is_file(), target
