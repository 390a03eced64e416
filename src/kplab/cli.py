"""The command ``kplab <verb> [overrides…]``. No large package is imported before a verb is chosen."""

from __future__ import annotations

import sys

from kplab.tasks import find_verbs, load_verb


def usage() -> str:
    """The text of ``kplab --help``."""
    verbs = find_verbs()
    width = max(map(len, verbs))
    lines = ["kplab: a workspace for research on keypoint detection", "", "usage: kplab <verb> [key=value …]", ""]
    lines += [f"  {v.name:<{width}}  {v.summary}\n  {'':<{width}}    {v.example}" for v in verbs.values()]
    lines += [
        "",
        "kplab <verb> --cfg          print the composed configuration and stop",
        "kplab train --multirun …    one run per combination of comma-separated values",
        "All keys and groups are in conf/; overrides have Hydra's syntax: head=simcc optimizer.lr=3e-4",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run a verb and return the exit status; a mistake of the user ends in one message without a traceback."""
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    verb, rest = args[0], args[1:]
    verbs = find_verbs()
    if verb not in verbs:
        from difflib import get_close_matches

        close = get_close_matches(verb, verbs, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        print(f"kplab: unknown verb '{verb}'.{hint} Verbs: {', '.join(verbs)}.", file=sys.stderr)
        return 2
    if {"-h", "--help"} & set(rest):
        print(f"kplab {verb}: {verbs[verb].summary}\n\n  {verbs[verb].example}\n")
        from kplab.config import conf_dir

        print((conf_dir() / f"{verb}.yaml").read_text())
        return 0
    from kplab.errors import exit_code

    with exit_code(verb) as outcome:
        if "--cfg" in rest:
            from omegaconf import OmegaConf

            from kplab.tasks import compose

            print(OmegaConf.to_yaml(compose(verb, [a for a in rest if a not in ("--cfg", "--multirun", "-m")])))
            return 0
        load_verb(verb).main(rest)
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
