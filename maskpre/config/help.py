"""The text of --help."""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from maskpre.config.library import CONFIG_DIR, Library

_FLAGS = """Flags:
  --cfg job        print the composed configuration instead of running; -p KEY prints one part
  -m               run every combination of comma-separated values: -m masking.ratio=0.5,0.75 seed=0,1
                   on a SLURM cluster, a job for each, with hydra/launcher=slurm
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


def _split(text: str) -> tuple[str, list[str], str]:
    """The example lines of a command's file, the groups it chooses from, and its keys with their comments."""
    examples = "\n".join(line.lstrip("#") for line in text.splitlines() if line.startswith("#   "))
    defaults = yaml.safe_load(text).get("defaults", [])
    groups = [group for entry in defaults if isinstance(entry, dict) for group in entry]
    _, _, rest = text.partition("  - _self_\n") if defaults else ("", "", text)
    keys = [line for line in rest.splitlines() if not line.startswith(("#   ", "  - "))]
    return examples, groups, "\n".join(keys).strip()


def help_text(config_name: str, summary: str, folders: Sequence[Path] = ()) -> str:
    """What a command does, the groups to choose from, and the keys of its configuration."""
    library = Library(folders)
    examples, groups, keys = _split((CONFIG_DIR / f"{config_name}.yaml").read_text())
    listed = "\n".join(_describe_group(group, library.options(group), library) for group in groups)
    choices = f"Choices:\n{listed}\n\n" if groups else ""
    return f"""{summary.strip()}

python -m maskpre.{config_name} [GROUP=CHOICE ...] [KEY=VALUE ...]

Examples:
{examples}

{choices}Keys (those of the parts chosen are in their files, or in --cfg job):
{keys}

{_FLAGS}"""
