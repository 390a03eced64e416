"""The command ``kplab <verb> [overrides…]``. No large package is imported before a verb is chosen."""

from __future__ import annotations

import sys
from importlib import import_module

from kplab.errors import ConfigError, exit_code
from kplab.tasks import Verb, find_verbs

#: Verbs whose processes train or predict until they end.
LONG = ("demo", "predict", "reproduce", "track", "train")


def usage(verbs: dict[str, Verb]) -> str:
    """The text of ``kplab --help``."""
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
    verb, rest = (args[0], args[1:]) if args else ("--help", [])
    if rest and is_word(rest[0]):
        verb, rest = f"{verb} {rest[0]}", rest[1:]
    if argv is None and verb in LONG:  # the process has no other purpose
        from kplab.tasks.wiring.allocator import keep_freed_memory

        keep_freed_memory()
    with exit_code(verb) as outcome:
        outcome.code = run(verb, rest)
    return outcome.code


def is_word(argument: str) -> bool:
    """Whether an argument is neither an override nor an option, and so an action of a verb.

    >>> is_word("convert"), is_word("head=simcc"), is_word("--cfg"), is_word("~dataset")
    (True, False, False, False)
    """
    return argument.isidentifier()


def run(verb: str, args: list[str]) -> int:
    """Print help, print a configuration, or run a verb; returns the exit status.

    Raises:
        ConfigError: there is no such verb.
    """
    verbs = find_verbs()
    if verb in ("-h", "--help", "help"):
        print(usage(verbs))
        return 0
    first, _, action = verb.partition(" ")
    actions = [name.partition(" ")[2] for name in verbs if name.startswith(f"{first} ")]
    if action and first in verbs and not actions:
        verb, args = first, [action, *args]  # which its configuration refuses
    elif action and first in verbs and action not in actions:
        raise ConfigError(f"kplab {first} has no action '{action}'. Actions: {', '.join(actions)}.")
    if verb not in verbs:
        from difflib import get_close_matches

        close = get_close_matches(first, verbs, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"unknown verb '{first}'.{hint} Verbs: {', '.join(name for name in verbs if ' ' not in name)}."
        )
    found = verbs[verb]
    if {"-h", "--help"} & set(args):
        from kplab.config import conf_dir, config_name

        config = found.config or conf_dir() / f"{config_name(verb)}.yaml"
        print(f"kplab {verb}: {found.summary}\n\n  {found.example}\n\n{config.read_text()}")
    elif "--cfg" in args:
        from omegaconf import OmegaConf

        from kplab.tasks import compose

        print(OmegaConf.to_yaml(compose(verb, [a for a in args if a not in ("--cfg", "--multirun", "-m")])))
    else:
        return int(import_module(found.module).main(args) or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
