"""Who may import what: the rules of the house (docs/architecture.md), decided from the source text alone.

python -m tests.house.import_rules     prints every violation of this tree, exit status 1 if there is one
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PRODUCT = ("dmm_wire", "dhcp_cmd", "relay_maar")
"""What is installed. schema/ is too, as dhcp_cmd.schema."""

FOLDERS = (*PRODUCT, "schema", "lab", "tests", "bench", "tools")

IMPURE = (
    # the network and the event loop
    *("socket", "socketserver", "asyncio", "select", "selectors", "ssl", "http", "urllib.request"),
    # the clock
    *("time", "sched", "zoneinfo"),
    # chance
    *("random", "secrets", "uuid"),
    # the system, other processes, threads
    *("os", "fcntl", "signal", "subprocess", "shutil", "tempfile", "threading", "multiprocessing"),
    # the database, the kernel, the DHCPv6 server, and ways to reach any of them by name
    *("sqlite3", "sqlalchemy", "alembic", "psycopg", "pyroute2", "dhcpkit", "importlib"),
)
"""What no core/ imports: `now`, randomness and state go in as arguments, decisions and actions come out."""

CLOCK_METHODS = frozenset({"now", "utcnow", "today"})
CLOCK_CLASSES = frozenset({"datetime", "date"})


@dataclass(frozen=True, slots=True)
class Use:
    """One thing a source uses: a module it imports or a builtin or clock method that it calls."""

    name: str
    line: int


def uses(module: str, source: str, is_package: bool = False) -> Iterator[Use]:
    """All imports, also those inside functions and under TYPE_CHECKING, as absolute dotted names (`from a import b`
    gives `a.b`, since b may be a module); then `datetime.now` and its like, `open` and `__import__`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Use(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                package = ".".join([*parents, package]) if package else ".".join(parents)
            for alias in node.names:
                yield Use(f"{package}.{alias.name}", node.lineno)
        elif isinstance(node, ast.Attribute) and node.attr in CLOCK_METHODS:
            base = node.value
            name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
            if name in CLOCK_CLASSES:
                yield Use(f"{name}.{node.attr}()", node.lineno)
        elif isinstance(node, ast.Name) and node.id in {"open", "__import__"}:
            yield Use(f"{node.id}()", node.lineno)


def within(name: str, *modules: str) -> bool:
    """True if `name` is one of `modules` or something inside one."""
    return any(name == module or name.startswith(module + ".") for module in modules)


def top(name: str) -> str:
    return name.partition(".")[0]


def is_impure(name: str) -> bool:
    return within(name, *IMPURE) or name.endswith("()")


@dataclass(frozen=True, slots=True)
class Rule:
    """In a module for which `applies` is true, a use for which `forbids` is true breaks the rule."""

    text: str
    applies: Callable[[str], bool]
    forbids: Callable[[str, str], bool]
    """Called with the module's name and the used name."""


def is_product(module: str) -> bool:
    return within(module, *PRODUCT, "schema")


def is_core(module: str) -> bool:
    return is_product(module) and "core" in module.split(".")


def is_oracle(module: str) -> bool:
    """A script that runs as a child process, to ask scapy."""
    return not is_product(module) and module.endswith("_oracle")


def is_beside_scapy(module: str) -> bool:
    """What runs in a process with scapy."""
    return is_oracle(module) or within(module, "tools.scapy_dmm")


def own_core(module: str) -> str:
    """relay_maar.core.agent -> relay_maar.core"""
    parts = module.split(".")
    return ".".join(parts[: parts.index("core") + 1])


RULES = (
    Rule(
        "dmm_wire imports the standard library only, and does no IO",
        lambda module: within(module, "dmm_wire"),
        lambda module, name: (
            is_impure(name)
            or not (
                within(name, "dmm_wire")
                or name.endswith("()")
                or top(name) in sys.stdlib_module_names
            )
        ),
    ),
    Rule(
        "dhcp_cmd and relay_maar never import each other",
        lambda module: within(module, "dhcp_cmd", "relay_maar", "schema"),
        lambda module, name: (
            within(name, "dhcp_cmd", "relay_maar")
            and top(name) != ("dhcp_cmd" if top(module) == "schema" else top(module))
        ),
    ),
    Rule(
        "a core/ is pure: no network, event loop, clock, chance, system, database or kernel",
        is_core,
        lambda module, name: is_impure(name),
    ),
    Rule(
        "a core/ imports no other part of its own program",
        is_core,
        lambda module, name: (
            within(name, *PRODUCT) and not within(name, "dmm_wire", own_core(module))
        ),
    ),
    Rule(
        "only dhcp_cmd.store and schema/ know SQLAlchemy, Alembic and psycopg",
        lambda module: is_product(module) and not within(module, "dhcp_cmd.store", "schema"),
        lambda module, name: within(name, "sqlalchemy", "alembic", "psycopg"),
    ),
    Rule(
        "only relay_maar.southbound knows pyroute2",
        lambda module: is_product(module) and not within(module, "relay_maar.southbound"),
        lambda module, name: within(name, "pyroute2"),
    ),
    Rule(
        "only dhcp_cmd.plugin knows dhcpkit and ZConfig",
        lambda module: is_product(module) and not within(module, "dhcp_cmd.plugin"),
        lambda module, name: within(name, "dhcpkit", "ZConfig"),
    ),
    Rule(
        "the product imports nothing of lab/, tests/ and bench/",
        is_product,
        lambda module, name: within(name, "lab", "tests", "bench"),
    ),
    Rule(
        "scapy (GPL-2.0-only) is imported by *_oracle.py, which runs as a child process, and tools.scapy_dmm only",
        lambda module: not is_beside_scapy(module),
        lambda module, name: within(name, "scapy"),
    ),
    Rule(
        "what is beside scapy imports neither dhcpkit (GPL-3.0-or-later) nor our programs",
        is_beside_scapy,
        lambda module, name: within(name, "dhcpkit", "dhcp_cmd", "relay_maar"),
    ),
    Rule(
        "nobody imports an *_oracle.py, and only what is beside scapy imports tools.scapy_dmm",
        lambda module: True,
        lambda module, name: (
            any(part.endswith("_oracle") for part in name.split("."))
            or (within(name, "tools") and not is_beside_scapy(module))
        ),
    ),
    Rule(
        "tools.scapy_dmm is another reader of the same wire: it does not know dmm_wire",
        lambda module: within(module, "tools"),
        lambda module, name: within(name, "dmm_wire"),
    ),
)


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    """One line per broken rule and place: `module:line: uses name: rule`. Raises SyntaxError for what is no Python."""
    found = list(uses(module, source, is_package))
    return [
        f"{module}:{use.line}: uses {use.name}: {rule.text}"
        for rule in RULES
        if rule.applies(module)
        for use in found
        if rule.forbids(module, use.name)
    ]


def sources(root: Path = ROOT) -> Iterator[tuple[str, Path]]:
    """Module name and path of every Python file of ours."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def tree_violations(root: Path = ROOT) -> list[str]:
    """The same for every file of ours; one that is no Python is a line of its own."""
    lines = []
    for module, path in sources(root):
        try:
            lines += violations(module, path.read_text("utf-8"), path.name == "__init__.py")
        except SyntaxError as error:
            lines.append(f"{module}:{error.lineno}: is no Python: {error.msg}")
    return lines


if __name__ == "__main__":
    broken = tree_violations()
    print("\n".join(broken) or "import rules: kept")
    sys.exit(bool(broken))
