"""Attacks a trained classifier and writes per-example results.

python -m stages.attack --config=l2p --attacks='fgsm; pgd(steps=20, restarts=2); pgd(draws=10)'
python -m stages.attack --run_dir=runs/mine --name=pgd --attacks='autoattack(epsilon=8/255); l2p_cw(kappa=5)'
python -m stages.attack --run_dir=runs/mine --transfer=none,pgd,none+pgd --attacks='mim(steps=20)'
python -m stages.attack --run_dir=runs/mine --name=smoothing --certify='smoothing(sigma=0.25)' --limit=500
python -m stages.attack --run_dir=runs/mine --name=pgd --attacks='pgd(steps=20)' --checks_epsilon=8/255
python -m stages.attack --attacks=help

Reads RUN_DIR/NAME/train and RUN_DIR/data (or --data); makes RUN_DIR/NAME/attack, or attack_cleverhans with
--backend=cleverhans (foolbox and art likewise). With --transfer examples are made on each of the named runs and shown
to all of them; makes RUN_DIR/transfer. The signs of gradient masking are looked for after the attacks, in
RUN_DIR/NAME/checks, unless --checks=0. With --certify nothing is attacked: certified radii are computed, in
RUN_DIR/NAME/certify. A randomized model is evaluated --repeats times. Continues where an earlier run of the same
command stopped.

With --share, processes that run the same command, here or on other machines with the same RUN_DIR, share the work slice
by slice: each image is attacked once, the results are those of one process, and who ends early is replaced. Checks are
done by one of them, while the others wait.

--data=FOLDER judges a run on the images of another data artifact, which have its shape and classes; what comes of it
goes to folders of its own, such as RUN_DIR/NAME/attack_DATA, which say how many of the images the run was trained on.

Attacks given later, with otherwise the same options, join those that are done, whose records stay as they are; a list
without some of those done takes nothing away. With --overwrite the folder is made anew, with just the attacks given.
Attacks with another --limit go into a folder of their own, such as RUN_DIR/NAME/attack_1000_images, so that slow
attacks can be run on fewer images; the report shows all.
"""

from __future__ import annotations

from l2p_tf.types import UserError
from stages import calls, common, definitions, folders, gates, helps, settings

definitions.show("attack")


def main(_argv: list[str]) -> int:
    if helps.asked_for_help():
        return 0
    flags = settings.read()
    settings.start(flags)
    if flags.certification:
        if flags.transfer_sources([]):
            raise UserError("`--certify` and `--transfer` should be given to commands of their own.")
        name = calls.run_name(flags)
        run, images = calls.trained(flags, name), calls.made_data(flags)
        records = calls.certify(flags, name, run, images)
        calls.show_certificates(folders.place(flags, name, "certify", calls.other_data(run, images)), records)
        return 0
    flags.check()
    sources = flags.transfer_sources(calls.trained_names(flags))
    if sources:
        if flags.bounds:
            raise UserError("`--require` and `--transfer` should be given to commands of their own.")
        names = dict.fromkeys(name for source in sources for name in source.split("+"))
        runs = {name: calls.trained(flags, name) for name in names}
        images = calls.made_data(flags)
        calls.transfer(flags, sources, runs, images)
        calls.show_tables(flags, [calls.transfer_folder(flags, runs, images)], list(names))
    else:
        name = calls.run_name(flags)
        gates.check(flags, [name])
        run, images = calls.trained(flags, name), calls.made_data(flags)
        calls.attack(flags, name, run, images)
        calls.check(flags, name, run, images)
        other = calls.other_data(run, images)
        places = [*folders.attacks(flags, name, other), *folders.checks(flags, name, other)]
        calls.show_tables(flags, [*places, images.artifact.path], [name])
        return gates.hold(flags, [name], images)
    return 0


if __name__ == "__main__":
    common.run(main)
