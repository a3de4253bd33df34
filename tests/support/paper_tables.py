"""Reads the numbers of the papers' tables out of the papers' texts, without the file they are held in."""

import re

NETWORKS = {
    "l2p_table1": ("ResNet-V1(20)", "ResNet-V1(56)", "ResNet-V2(18)"),
    "l2p_table2": (
        "ResNet-V1(20)", "ResNet-V1(32)", "ResNet-V1(44)", "ResNet-V1(56)", "ResNet-V1(20)[1.5x]",
        "ResNet-V1(20)[2x]", "ResNet-V1(20)[4x]", "ResNet-V2(18)",
    ),
}  # fmt: skip
DEFENSES = ("No defense", "Vanilla", "PNI", "Adv-BNN", "Learn2Perturb")
STUDY_LINES = {
    "Natural examples": "clean", "linf PGD": "pgd_linf", "l2 PGD": "pgd_l2", "linf FGSM": "fgsm",
}  # fmt: skip
STUDY_HEADS = {
    "study_table1": {
        "linf PGD training": ("BasicNet", "PGD l_inf training"), "l2 PGD training": ("BasicNet", "PGD l_2 training"),
        "linf FGSM training": ("BasicNet", "FGSM training"),
    },
    "study_table2": {
        "PGD linf training": ("Wide ResNet18", "PGD l_inf training"),
        "PGD linf/l2 Random training": ("Wide ResNet18", "Random mix training"),
    },
    "study_table3": {
        "Standard Resnet20": ("ResNet20", "Random mix training"), "VGG11": ("VGG11", "Random mix training"),
        "Wide Resnet18": ("Wide ResNet18", "Random mix training"),
    },
    "study_table4": {
        "BasicNet": ("BasicNet", "Without noise"), "BasicNet with Noise": ("BasicNet", "With noise"),
        "Wide ResNet": ("Wide ResNet18", "Without noise"), "Wide Resnet with noise": ("Wide ResNet18", "With noise"),
    },
    "study_table5": {"NoiseNet20": ("ResNet20", "NoiseNet"), "ResNet20": ("ResNet20", "Without noise")},
    "study_table6": {
        "Wide Resnet18": ("Wide ResNet18", "Result"),
        "Wider Resnet18 manual mix": ("Wider ResNet18, manual mix", "Result"),
    },
}  # fmt: skip
GENERATOR_COLUMNS = {
    "Baseline": "Baseline", "Goodfellow et al. (2015)": "FGM training", "Madry et al. (2018)": "PGD training",
    "Ours": "Generator",
}  # fmt: skip
GENERATOR_ATTACKS = {"FGM": "fgm", "MIM": "mim", "Deepfool": "deepfool", "C&W": "cw", "Average": "average"}


def read(folder):
    """Every number of every table: {table: {(row, column, metric): (value, spread)}}; accuracies in percent."""
    l2p = (folder / "learn2perturb.txt").read_text("utf-8")
    supplement = _tables((folder / "learn2perturb_supplement.md").read_text("utf-8"))
    study = _tables((folder / "adversarial_training_for_image_classification.md").read_text("utf-8"))
    generator = _tables((folder / "perturbation_generator_networks.md").read_text("utf-8"))
    found = {
        "l2p_table1": _networks(l2p, "l2p_table1", ("No defense", "Vanilla", "Learn2Perturb-R", "Learn2Perturb")),
        "l2p_table2": _networks(l2p, "l2p_table2", ("PNI", "Adv-BNN", "Learn2Perturb")),
        "l2p_table3": _confidences(l2p),
        "l2p_table4": _defenses(l2p),
        "l2p_eot": _expectations(l2p),
        "l2p_supp_table1": _pixels(_with(supplement, "Attack Strength")[0]),
        "l2p_supp_table2": _transfers(_with(supplement, "Source Model")[0]),
    }
    bodies = _with(study, "Natural examples")
    assert len(bodies) == 6
    found |= {name: _study(body, STUDY_HEADS[name]) for name, body in zip(STUDY_HEADS, bodies, strict=True)}
    bodies = _with(generator, "BENIGN ACCURACY")
    return found | {f"generator_table{i}": _generator(body) for i, body in enumerate(bodies, start=1)}


def number(text):
    """Value and spread of `51.13±0.08` or of a number alone."""
    value, _, spread = text.partition("±")
    return float(value.replace(",", ".")), float(spread) if spread else None


def _tables(text):
    """The tables of a Markdown text, as lists of lines of fields, without markup."""
    tables = [[]]
    for line in text.splitlines():
        if "\t" in line:
            tables[-1].append([_plain(field) for field in line.split("\t")])
        elif tables[-1]:
            tables.append([])
    return tables


def _plain(field):
    field = re.sub(r"</?\w+>", "", field).replace(r"\pm", "±").replace(r"\ell", "l").replace(r"\infty", "inf")
    field = re.sub(r"[${}_]", "", field)
    return re.sub(r"\s*±\s*", "±", field).strip()


def _with(tables, name):
    """The tables that have a field of that name in their first two lines."""
    return [table for table in tables if any(name in line for line in table[:2])]


def _blocks(lines, labels):
    """Blocks of the same number of lines, each with its label in the first field of one of them and no other."""
    size, rest = divmod(len(lines), len(labels))
    assert not rest
    for i, label in enumerate(labels):
        block = lines[i * size : (i + 1) * size]
        assert [line[0] for line in block if line[0]] == [label]
        yield block


def _networks(text, table, columns):
    found = {}
    for row in NETWORKS[table]:
        begin = re.escape(row).replace("x\\]", "×\\]") + r" [\d,]+ (.*)"  # noqa: RUF001 - the paper prints the sign
        runs = [run.split() for run in re.findall(begin, text)]
        (run,) = [run for run in runs if len(run) == 3 * len(columns)]
        places = [(row, column, metric) for column in columns for metric in ("clean", "pgd", "fgsm")]
        found |= dict(zip(places, map(number, run), strict=True))
    return found


def parameters(text):
    """The trainable parameters of each network, wherever they are printed: {row: {number, ...}}."""
    found = {}
    for row in NETWORKS["l2p_table2"]:
        begin = re.escape(row).replace("x\\]", "×\\]") + r" ([\d,]+) "  # noqa: RUF001 - the paper prints the sign
        found[row] = {int(count.replace(",", "")) for count in re.findall(begin, text) if "," in count}
    return found


def _confidences(text):
    found = {}
    for kappa, run in re.findall(r"κ = ([\d.]+) (.*)", text):
        places = [("Network not named", column, f"cw_kappa_{float(kappa):g}") for column in DEFENSES]
        found |= dict(zip(places, map(number, run.split()), strict=True))
    return found


def _defenses(text):
    names = ("RSE", "DP", "Adv-BNN", "PGD adv. training", "PNI", "Learn2Perturb")
    (_, part) = text.split("Defense Method Model Clean PGD\n")
    found = {}
    for row, line in zip(names, part.splitlines(), strict=False):
        assert line.startswith(row)
        found |= {(row, "Result", m): number(t) for m, t in zip(("clean", "pgd"), line.split()[-2:], strict=True)}
    return found


def _expectations(text):
    (_, part) = text.split("4.5. Expectation over Transformation")
    values = re.findall(r"([\d.]+)%\s+robustness", part)
    columns = ("PNI", "Adv-BNN", "Learn2Perturb")
    return {("Network not named", c, "pgd_eot"): number(v) for c, v in zip(columns, values, strict=True)}


def _pixels(table):
    head, lines = table[0], table[1:]
    assert [re.sub("defen.e", "defense", name) for name in head[2:]] == list(DEFENSES)
    found = {}
    for row in ("ResNet-V1(20)", "ResNet-V2(18)"):
        mine = next(
            block for block in _blocks(lines, ("ResNet-V1(20)", "ResNet-V2(18)")) if row in [b[0] for b in block]
        )
        for line in mine:
            metric = line[1].replace("-pixel", "_pixel" if line[1][0] == "1" else "_pixels")
            found |= {(row, c, metric): number(t) for c, t in zip(DEFENSES, line[2:], strict=True)}
    return found


def _transfers(table):
    columns = [name for name in table[0] if name]
    assert table[1][2:] == ["FGSM", "PGD"] * len(columns)
    found = {}
    rows = {"Resnet20 - V1": "ResNet-V1(20)", "Resnet18 - V2": "ResNet-V2(18)"}
    for row, block in zip(rows.values(), _blocks(table[2:], rows), strict=True):
        for line in block:
            source = line[1].lower().replace("-", "_")
            places = [(row, c, f"{a}_from_{source}") for c in columns for a in ("fgsm", "pgd")]
            printed = zip(places, line[2:], strict=True)
            found |= {place: number(text) for place, text in printed if text not in ("-", "")}
    return found


def _study(table, heads):
    found = {}
    for line in table[1:]:
        (metric,) = [key for words, key in STUDY_LINES.items() if line[0].replace("norm ", "").startswith(words)]
        for head, text in zip(table[0][1:], line[1:], strict=True):
            found[*heads[head], metric] = number(text)
    return found


def _generator(table):
    assert table[0][2:5] == ["ACCURACY W-BOX", "MEAN L 2 W-BOX", "MEDIAN L 2 W-BOX"]
    assert table[0][5:7] == ["ACCURACY B-BOX", "BENIGN ACCURACY"]
    found = {}
    for column, block in zip(GENERATOR_COLUMNS.values(), _blocks(table[1:], GENERATOR_COLUMNS), strict=True):

        def put(metric, text, share=True, column=column):
            found["All-convolutional", column, metric] = round((100 if share else 1) * float(text), 6), None

        for line in block:
            attack = GENERATOR_ATTACKS[line[1]]
            put(f"{attack}_accuracy", line[2])
            put(f"{attack}_mean_l2", line[3], share=False)
            put(f"{attack}_median_l2", line[4], share=False)
            put(f"{attack}_black_box", line[5])
        put("clean", block[0][6])
        put("seconds_per_epoch", block[0][7], share=False)
    return found
