"""The text of --help."""

import re
from collections.abc import Sequence
from pathlib import Path

from maskpre.config.library import CONFIG_DIR, Library
from maskpre.config.schema import SCHEMAS
from maskpre.config.target import arguments_of

_FLAGS = """Flags:
  --cfg job        print the composed configuration instead of running; -p KEY prints one part
  -m               run every combination of comma-separated values: -m masking.ratio=0.5,0.75 seed=0,1
  --config-dir DIR take configurations from DIR too, e.g. DIR/experiment/mine.yaml for experiment=mine
  --info defaults  show which files a configuration is made of
MASKPRE_DEBUG=1 in the environment shows the stack trace of every error."""


def _first_comment(file: Path) -> str:
    """The first sentence of a file's header."""
    lines = [line for line in file.read_text().splitlines() if line.startswith("# ")]
    text = " ".join(line.lstrip("# ") for line in lines if "@package" not in line)
    return re.split(r"[.:;] ", re.sub(r" \([^)]*\)", "", text))[0].rstrip(".")


def _describe_group(group: str, options: Sequence[str], library: Library) -> str:
    width = max(len(name) for name in options)
    files = {name: library.find(f"{group}/{name}") for name in options}
    rows = [f"    {name:{width}}  {_first_comment(file) if file else ''}" for name, file in files.items()]
    return "\n".join([f"  {group}", *(row.rstrip() for row in rows)])


def help_text(config_name: str, summary: str, folders: Sequence[Path] = ()) -> str:
    """What a command does, the groups to choose from, and the keys of its configuration."""
    library = Library(folders)
    names = ["experiment", *arguments_of(SCHEMAS[config_name]).annotations, "debug"]
    groups = {name: options for name in names if (options := library.options(name))}
    listed = "\n".join(_describe_group(group, options, library) for group, options in groups.items())
    header, _, keys = (CONFIG_DIR / f"{config_name}.yaml").read_text().partition("defaults:\n")
    examples = "\n".join(line.lstrip("#") for line in header.splitlines() if line.startswith("#   "))
    keys = keys.partition("\n\n")[2]
    return f"""{summary.strip()}

python -m maskpre.{config_name} [GROUP=CHOICE ...] [KEY=VALUE ...]

Examples:
{examples}

Choices:
{listed}

Keys (those of the parts chosen are in their files, or in --cfg job):
{keys.strip()}

{_FLAGS}"""
