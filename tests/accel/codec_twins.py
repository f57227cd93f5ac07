"""The codecs in pairs: every test that takes one of these runs over the compiled one and its plain twin."""

from types import SimpleNamespace

from hiqlite._accel import answers, commands, records, values
from hiqlite._accel.plain import answers as plain_answers
from hiqlite._accel.plain import command_view as plain_command_view
from hiqlite._accel.plain import commands as plain_commands
from hiqlite._accel.plain import records as plain_records
from hiqlite._accel.plain import rows as plain_rows
from hiqlite._accel.plain import values as plain_values

NAMES = ("compiled", "plain")
VALUES = {
    "compiled": values,
    "plain": SimpleNamespace(**{**vars(plain_values), **vars(plain_rows)}),
}
RECORDS = {"compiled": records, "plain": plain_records}
COMMANDS = {
    "compiled": commands,
    "plain": SimpleNamespace(**{**vars(plain_commands), "command_view": plain_command_view.command_view}),
}
ANSWERS = {"compiled": answers, "plain": plain_answers}


def outcome(function, *args, **kwargs):
    """What a call gave, or the kind of error it raised: what two twins must agree on."""
    try:
        return "value", function(*args, **kwargs)
    except Exception as error:
        return "error", type(error), str(error)
