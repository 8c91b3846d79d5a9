"""What the pages name is there: links, files, tests, modules, units, variables, targets, commands and their options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from supervisor.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])
HISTORY = re.compile(r"docs/adr/|CHANGELOG")  # what was, and may be gone
LIVING = [page for page in PAGES if not HISTORY.search(str(page))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(\s*([^)\s]+)\s*\)")
_CODE = re.compile(r"`([^`]+)`")
FOLDERS = ("tests", "docs", "edge", "supervisor", "lobu_actors", "benchmarks", "systemd")
_PATH = re.compile(rf"(?:{'|'.join(FOLDERS)}|results)/[\w./@*-]*")
_FILE = re.compile(r"\w[\w./-]*\.(?:py|sql|js|mjs|sh|yml)")
_NAMED_TEST = re.compile(r"(?:(tests/[\w/]+\.py)`? )?`(test_\w+)`")
_MODULE = re.compile(r"python3? -m ((?:tests|benchmarks|supervisor|lobu_actors)[\w.]*\w)")
_UNIT = re.compile(r"\blobu[\w-]*@?\w*\.(?:service|socket|slice|target)\b")
_VARIABLE = re.compile(r"\bLOBU_[A-Z][A-Z_]*[A-Z]\b")
_TAKEN_BACK = re.compile(r"[Tt]akes\s+back\*{0,2}\s+a\s+sentence\s+of\s+ADR\s+(\d+)")
_MADE = "results/"  # by commands, and not kept
_ASSIGNED = r"(?:[A-Z_]+=(?:\$\([^)]*\)|\S+) +)*"
_LOBU = re.compile(rf"^(?:\$ )?{_ASSIGNED}(?:\S*/)?lobu((?: +[^\s|#;&]+)+)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def pages(found: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", found, ids=name_of)


def prose(text: str) -> str:
    """Without fenced code."""
    return _FENCE.sub("", text)


def code(text: str) -> Iterator[str]:
    """Lines of fenced code, with those that go on put together, and what stands in backticks."""
    for kind, block in _FENCE.findall(text):
        if kind in ("", "sh", "console"):
            yield from block.replace("\\\n", " ").splitlines()
    yield from (found.replace("\n", " ") for found in _CODE.findall(prose(text)))


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")


@cache
def anchors(page: Path) -> frozenset[str]:
    return frozenset(anchor(line.lstrip("#")) for line in prose(page.read_text()).splitlines() if line.startswith("#"))


@pages(PAGES)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page.read_text())):
        path, _, place = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not place or place in anchors(target), f"{link}: there are {sorted(anchors(target))}"


def test_every_page_can_be_reached_from_the_first_one() -> None:
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = (link.partition("#")[0] for link in _LINK.findall(prose(page.read_text())))
        targets = ((page.parent / link).resolve() for link in links if link and ":" not in link)
        left += [one for target in targets for one in (target.glob("*.md") if target.is_dir() else [target])]
    assert set(PAGES) <= reached


@pages(LIVING)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()
    named = {path for span in code(text) for path in _PATH.findall(span) if span.startswith(path)}
    assert [path for path in named if not path.startswith(_MADE) and not list(ROOT.glob(path.rstrip("/.")))] == []
    modules = [ROOT / name.replace(".", "/") for name in _MODULE.findall(text)]
    assert [at for at in modules if not (at.with_suffix(".py").exists() or (at / "__main__.py").exists())] == []


@cache
def files() -> frozenset[str]:
    """Those that belong to the project, by their paths."""
    kinds, left_out = {".py", ".sql", ".js", ".mjs", ".sh", ".yml"}, {"node_modules", "__pycache__", "build"}
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in kinds)
    return frozenset(name_of(path) for path in found if not left_out & set(path.parts))


@pages(LIVING)
def test_every_file_that_is_named_by_its_end_is_there(page: Path) -> None:
    """`store/pool.py` is `lobu_actors/store/pool.py`."""
    named = {span for span in code(page.read_text()) if _FILE.fullmatch(span)} - {"my_agent.py"}
    assert [end for end in named if not any(f"/{name}".endswith(f"/{end}") for name in files())] == []


@cache
def names_in(file: str) -> frozenset[str]:
    return frozenset(re.findall(r"def (test_\w+)", (ROOT / file).read_text()))


@pages(LIVING)
def test_every_test_that_is_named_is_there(page: Path) -> None:
    everywhere = frozenset[str]().union(*(names_in(name_of(path)) for path in (ROOT / "tests").rglob("test_*.py")))
    for file, name in _NAMED_TEST.findall(page.read_text()):
        assert name in (names_in(file) if file else everywhere), f"{file} {name}"


def test_every_target_of_make_is_named_and_every_one_that_is_named_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    spans = [span for page in LIVING for span in code(page.read_text())]
    named = {target for span in spans for target in re.findall(r"^(?:\$ )?make ([a-z][\w-]*)", span)}
    assert named == targets


@pages(LIVING)
def test_every_unit_and_variable_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()
    units = {unit.replace("@N.", "@.") for unit in _UNIT.findall(text)}
    assert units <= {path.name for path in (ROOT / "systemd").iterdir()}
    assert set(_VARIABLE.findall(text)) <= variables()


@cache
def variables() -> frozenset[str]:
    folders = ("supervisor", "lobu_actors", "edge")
    sources = [path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return frozenset(name for source in sources for name in _VARIABLE.findall(source))


def test_a_decision_that_was_taken_back_says_so_in_its_head() -> None:
    """A page of one says which others it changes by `Takes back … of ADR n`; there `Since then` leads to it."""
    decisions = {int(page.name[:4]): page for page in PAGES if page.parent.name == "adr"}
    for page in decisions.values():
        for number in map(int, _TAKEN_BACK.findall(page.read_text())):
            head = decisions[number].read_text().split("\n\n")[1]
            assert head.startswith("**Since then**"), decisions[number]
            assert page.name in head


def tree(command: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(("lobu", *words)), command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from tree(found, *words, name)


def test_every_command_has_an_example_that_can_be_called() -> None:
    for name, command in tree(cli):
        examples = [line.strip() for line in (command.epilog or "").splitlines() if "lobu " in line]
        assert examples, name
        for words in calls("\n".join(f"`{example}`" for example in examples)):
            check_options(words)


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that `words` name, and those that are its own."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z][\w-]*", words[0]):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"{command.name} has no command {words[0]!r}"
        command, words = found, words[1:]
    return command, words


def calls(text: str) -> Iterator[list[str]]:
    """Of this program, with what follows its name."""
    for span in code(text):
        if called := _LOBU.match(span):
            yield called[1].split()


@pages(LIVING)
def test_every_command_is_there_with_its_options(page: Path) -> None:
    for words in calls(page.read_text()):
        check_options(words)


def check_options(words: list[str]) -> None:
    command, own = command_of(words)
    taken = command.get_params(click.Context(command))
    known = {name for one in taken for name in (*one.opts, *one.secondary_opts)}
    ours = own[: own.index("--")] if "--" in own else own
    options = {word.partition("=")[0] for word in ours if word.startswith("-")}
    assert options <= known, f"lobu {' '.join(words)}"


def test_commands_are_found_on_the_pages() -> None:
    """What reads the pages finds what stands there."""
    operations = [" ".join(words) for words in calls((ROOT / "docs" / "operations.md").read_text())]
    assert "systemd install --embedded" in operations
    assert any(call.startswith("rollout run --without") for call in operations)
    assert len(operations) > 20
