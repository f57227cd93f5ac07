"""The mutants whose place is how a group comes to be (forming, and giving a recorded set up)."""

from __future__ import annotations

from .model import Killer, Mutant

FORMING, RENOUNCING = "engine/forming.py", "runtime/renouncing.py"

FOUNDING = (
    Mutant(
        "M19", "a recorded set is given up by one node alone", RENOUNCING,
        "return len(rest) < len(recorded) // 2 + 1 or all(number in gone for number in rest)", "return True",
        Killer.FOUNDINGS,
    ),
    Mutant(
        "M19b", "who renounced a set forms with it by itself", RENOUNCING,
        "self.renounces(recorded) and not self.follows(recorded):\n            return Step.WAIT",
        "False:\n            return Step.WAIT", Killer.FOUNDINGS,
    ),
    Mutant(
        "M19c", "who renounced alone is not joined by the others", RENOUNCING,
        " or self._others_gave_up(recorded)\n", "\n", Killer.FOUNDINGS,
    ),
    Mutant(
        "M19d", "a member that recorded another set is waited for", RENOUNCING,
        "if self._sets.get(one, recorded) != recorded}", "if False}", Killer.FOUNDINGS,
    ),
    Mutant(
        "M19e", "the word of who renounced a set counts", RENOUNCING,
        "or greeting.formed or (peer_id, self._set_id(recorded)) not in self._renouncers:", "or True:",
        Killer.FOUNDINGS,
    ),
    Mutant(
        "M19f", "a set whose other members are all gone is kept", RENOUNCING,
        " or all(number in gone for number in rest)\n", "\n", Killer.FOUNDINGS,
    ),
    Mutant(
        "M20", "a fresh node forms although a formed one named it", FORMING,
        "if peer.recorded is not None or peer.formed:", "if False:", Killer.FOUNDINGS,
    ),
    Mutant(
        "M20b", "a set acts once a majority of it recorded it", FORMING,
        "        if not missing:\n", "        if 2 * len(missing) < len(recorded):\n", Killer.FOUNDINGS,
    ),
    Mutant(
        "M20c", "a set is adopted that names an earlier incarnation", FORMING,
        "greeting.recorded is not None and self.own in greeting.recorded:",
        "greeting.recorded and self.own.id in {one.id for one in greeting.recorded}:", Killer.FOUNDINGS,
    ),
)  # fmt: skip
