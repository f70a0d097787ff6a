"""Help in groups: of the commands, and of the options of a command.

The groups are the "rich help panels" of Typer. Typer shows them only with its frames, which leave 22 of 80 columns for
the words, so here they are sections of plain text.
"""

__all__ = ["FILES", "MAKE", "PICTURES", "USE", "Command", "Commands"]

from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Iterable

MAKE, USE, PICTURES, FILES = "Make models", "Use models", "Work on your pictures", "Compress pictures without loss"
ORDER = {"Arguments": 0, "Options": 1, "Help": 3}  # of sections; the groups are in between


def _title(parameter: Any) -> str:
    """Return the title of the section that shows a parameter."""
    if "--help" in parameter.opts:
        return "Help"
    return getattr(parameter, "rich_help_panel", None) or f"{parameter.param_type_name.capitalize()}s"


def _is_optional(parameter: Any) -> bool:
    """Tell whether the value of an option can be left out."""
    return parameter.param_type_name == "option" and (parameter.metavar or "").startswith("[")


def _write_sections(formatter: Any, rows: "Iterable[tuple[str, Any]]") -> None:
    """Write rows of two columns, each with the title of its section; sections keep the order of their first rows."""
    sections: dict[str, list[Any]] = {}
    for title, row in rows:
        sections.setdefault(title, []).append(row)
    for title, inside in sections.items():
        with formatter.section(title):
            formatter.write_dl(inside)


class Command(TyperCommand):
    """A command that shows its options in groups, and may have options whose value can be left out.

    The metavar of such an option is its only value in brackets, as in `[auto]`; without it, the option is "".
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        optional = {name: each.metavar for each in self.get_params(ctx) for name in each.opts if _is_optional(each)}
        args, given = [*args], args.index("--") if "--" in args else len(args)
        for i, arg in enumerate(args[:given]):
            if arg in optional and optional[arg] != f"[{''.join(args[i + 1 : i + 2])}]":
                args[i] = f"{arg}="
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        rows = [(_title(each), row) for each in self.get_params(ctx) if (row := each.get_help_record(ctx))]
        _write_sections(formatter, sorted(rows, key=lambda pair: ORDER.get(pair[0], 2)))


class Commands(TyperGroup):
    """The commands, shown in groups."""

    def list_commands(self, ctx: Any) -> list[str]:
        order = [MAKE, USE, PICTURES, FILES]
        return sorted(self.commands, key=lambda name: order.index(getattr(self.commands[name], "rich_help_panel", "")))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = {name: self.commands[name] for name in self.list_commands(ctx)}
        room = formatter.width - 6 - max(map(len, commands))
        rows = [
            (getattr(each, "rich_help_panel", ""), (name, each.get_short_help_str(room)))
            for name, each in commands.items()
        ]
        _write_sections(formatter, rows)
