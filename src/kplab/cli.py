"""The command ``kplab <verb> [overrides…]``. Nothing heavy is imported before a verb is chosen."""

from __future__ import annotations

import sys
from importlib import import_module

#: verb -> (module, what it does, an example)
VERBS = {
    "demo": ("kplab.tasks.demo", "make data, train two models, evaluate and compare them", "kplab demo"),
    "data": ("kplab.tasks.dataset", "read a dataset, check it, and draw some of it", "kplab data dataset=mouse"),
    "train": (
        "kplab.tasks.train",
        "train a model, then score it on its test split",
        "kplab train experiment=mouse_heatmap",
    ),
    "predict": ("kplab.tasks.predict", "find keypoints in new images", "kplab predict run=latest images=photos/"),
    "evaluate": ("kplab.tasks.evaluate", "score predictions against truth", "kplab evaluate run=latest split=test"),
    "compare": ("kplab.tasks.compare", "set runs side by side, with intervals", "kplab compare runs=[A,B]"),
    "benchmark": (
        "kplab.tasks.benchmark",
        "train families of detector on one dataset, one table",
        "kplab benchmark data=flies",
    ),
    "invariance": (
        "kplab.tasks.invariance",
        "how well interest points are found again in changed images",
        "kplab invariance images=photos/",
    ),
    "runs": ("kplab.tasks.runs", "list runs, newest first", "kplab runs"),
}


def usage() -> str:
    """What ``kplab --help`` prints."""
    width = max(map(len, VERBS))
    lines = ["kplab: a keypoint-detection research workspace", "", "usage: kplab <verb> [key=value …]", ""]
    lines += [f"  {verb:<{width}}  {what}\n  {'':<{width}}    {example}" for verb, (_, what, example) in VERBS.items()]
    lines += [
        "",
        "kplab <verb> --cfg          print the composed configuration and stop",
        "kplab train --multirun …    one run for each combination of comma-separated values",
        "Every key and group lies in conf/; overrides are Hydra's: head=simcc optimizer.lr=3e-4",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run a verb; mistakes of the user end in one clear message, never in a traceback."""
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    verb, rest = args[0], args[1:]
    if verb not in VERBS:
        from difflib import get_close_matches

        close = get_close_matches(verb, VERBS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        print(f"kplab: unknown verb '{verb}'.{hint} Verbs: {', '.join(VERBS)}.", file=sys.stderr)
        return 2
    if {"-h", "--help"} & set(rest):
        _, what, example = VERBS[verb]
        print(f"kplab {verb}: {what}\n\n  {example}\n")
        from kplab.config import conf_dir

        path = conf_dir() / f"{verb}.yaml"
        print(path.read_text() if path.is_file() else "It takes the keys of kplab train.")
        return 0
    from kplab.tasks.errors import exit_code

    with exit_code(verb) as outcome:
        if "--cfg" in rest and verb != "demo":
            from omegaconf import OmegaConf

            from kplab.config import compose

            print(OmegaConf.to_yaml(compose(verb, [a for a in rest if a not in ("--cfg", "--multirun", "-m")])))
            return 0
        import_module(VERBS[verb][0]).main(rest)
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
