"""Every command that documents and messages print can be given as it stands."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import typer
from packaging.requirements import Requirement

from deepscan.cli.app import app

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(path for folder in (".", "docs", "benchmarks", "examples") for path in (ROOT / folder).glob("*.md"))
SOURCES = sorted(path for folder in ("deepscan", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
COMMAND = re.compile(r"^(?:\S*/)?(?:python3? -m )?(deepscan|benchmarks\.\w+|pip) ")
QUOTED = re.compile(r"`([^`]+)`")
# What stands for something that a person fills in.
BLANK = re.compile(r"\b[A-Z][A-Z_]*\b|\.\.\.")
INCOMPLETE = ("MissingParameter", "NoArgsIsHelpError", "BadOptionUsage")
COMMAND_LINE = typer.main.get_command(app)


def lines_of_document(text: str) -> Iterator[str]:
    """Yield what is set as code: blocks, line by line, and pieces of a sentence."""
    block = False
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        block = block != line.startswith("```")
        if block or line.startswith("    "):
            yield line
    yield from QUOTED.findall(re.sub(r"```.*?```", "", joined, flags=re.DOTALL).replace("\n", " "))


def texts_of_source(source: str) -> Iterator[str]:
    """Yield the strings of a program, whole, with an X for what is filled in when it runs."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def lines_of_source(source: str) -> Iterator[str]:
    for text in texts_of_source(source):
        yield from QUOTED.findall(text.replace("\n", " "))
        yield from (line for line in text.splitlines() if line.startswith("    "))


def commands() -> Iterator[tuple[Path, list[str]]]:
    """Yield each command of a document or a program, as words, from the name of what is run."""
    for path in [*DOCUMENTS, *SOURCES]:
        extract = lines_of_document if path.suffix == ".md" else lines_of_source
        for line in extract(path.read_text()):
            for part in re.split(r"&&|\s\|\s", re.sub(r"\s#\s.*", "", line)):
                found = COMMAND.match(part.strip())
                if found is not None:
                    try:
                        yield path, [found[1], *shlex.split(part.strip()[found.end() :])]
                    except ValueError:  # a sentence with an apostrophe
                        continue


COMMANDS = list(commands())


def test_commands_are_found() -> None:
    """The other tests would pass if nothing were."""
    names = [words[0] for _, words in COMMANDS]
    assert names.count("deepscan") > 60
    assert names.count("pip") >= 8
    assert sum(name.startswith("benchmarks.") for name in names) > 8
    assert any(path.suffix == ".py" and "show" in words for path, words in COMMANDS)


def test_nothing_is_called_by_the_name_of_a_strangers_package() -> None:
    stranger = re.compile(r"deepscan\[|pip3? install [^`\n&|]*(?<![-/\w])deepscan(?![-/_\w])")
    found = {path.name: stranger.findall(path.read_text()) for path in [*DOCUMENTS, *SOURCES]}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_what_pip_is_to_install_exists() -> None:
    wrong = []
    for path, (name, *words) in COMMANDS:
        if name != "pip" or words[:1] != ["install"]:
            continue
        # Options, what a reader fills in, and paths (of wheels, of --target) name no package.
        for word in (word for word in words[1:] if word[0] not in "-/" and not BLANK.fullmatch(word)):
            local = re.fullmatch(r"\.(?:\[(.*)\])?", word)
            extras = set((local[1] or "").split(",")) - {""} if local else Requirement(word).extras
            ours = bool(local) or Requirement(word).name == "deepscan-video"
            if ours and not extras <= EXTRAS:
                wrong.append((path.name, word))
    assert wrong == []


def test_every_requirement_of_an_extra_is_well_formed() -> None:
    for requirements in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]:
        for line in requirements:
            requirement = Requirement(line)
            assert requirement.name != "deepscan"
            assert requirement.name != PROJECT["name"] or requirement.extras <= EXTRAS


# They do their work while the command line is parsed.
AT_ONCE = {"-h", "--help", "--version", "--install-completion", "--show-completion"}


def problem_of(words: list[str]) -> str | None:
    """Return why `deepscan` would refuse these words, or nothing."""
    command, context = COMMAND_LINE, typer.Context(COMMAND_LINE, info_name="deepscan")
    rest = list(words)
    while isinstance(getattr(command, "commands", None), dict) and rest and not rest[0].startswith("-"):
        if BLANK.fullmatch(rest[0]):
            return None
        if rest[0] not in command.commands:  # type: ignore[attr-defined]
            return f"no command {rest[0]}"
        command = command.commands[rest.pop(0)]  # type: ignore[attr-defined]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help", "-h"}
    unknown = [word for word in rest if re.match("--?[a-z]", word) and word.partition("=")[0] not in known]
    if unknown:
        return f"no option {unknown[0]}"
    if AT_ONCE & set(rest) or any(BLANK.search(word) for word in rest):
        return None
    try:
        command.make_context(context.info_name, rest, parent=context)
    except Exception as error:
        if type(error).__name__ in INCOMPLETE:  # a part of a command, in a sentence
            return None
        return str(error)
    return None


def test_every_command_of_deepscan_parses() -> None:
    wrong = [
        (str(path.relative_to(ROOT)), " ".join(words), problem)
        for path, (name, *words) in COMMANDS
        if name == "deepscan" and (problem := problem_of(words)) is not None
    ]
    assert wrong == []


def test_every_benchmark_exists_with_its_options() -> None:
    wrong = []
    for path, (name, *words) in COMMANDS:
        if not name.startswith("benchmarks."):
            continue
        if find_spec(name) is None:
            wrong.append((path.name, name, "does not exist"))
            continue
        source = (ROOT / f"{name.replace('.', '/')}.py").read_text()
        wrong += [(path.name, name, word) for word in words if word.startswith("--") and f'"{word}"' not in source]
    assert wrong == []
