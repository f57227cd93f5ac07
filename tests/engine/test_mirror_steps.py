"""How one group's members become those that another group lists, step by step, while nodes begin anew in between."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from hiqlite.engine.change import following, joining_voters, leaving_joint, members_of
from hiqlite.engine.mirror import is_of_the_past, is_over, next_change
from hiqlite.engine.model import Change, ChangeKind, Identity, Membership

NODES = range(1, 7)
STEPS_MAX = 40
LATER = 100  # what is added to an incarnation when a node begins anew


@dataclass
class World:
    """A group whose members change; `lives`: who each node is now, 0 for who was not heard of."""

    members: Membership
    voters: tuple[int, ...]
    learners: tuple[int, ...]
    lives: dict[int, int]

    def life_of(self, number: int) -> int:
        return self.lives[number]

    def next_change(self) -> Change | None:
        return next_change(self.members, self.voters, self.learners, self.life_of)

    @property
    def over(self) -> bool:
        return is_over(self.members, self.life_of)

    def begin_anew(self, number: int) -> None:
        """Only if the group survives it: what comes after is not a matter of changes."""
        before = self.lives[number]
        self.lives[number] = before + LATER
        if self.over:
            self.lives[number] = before

    def carry_out(self, change: Change) -> None:
        """As the engine does it: who is not there does not catch up, so it becomes no voter."""
        for one in joining_voters(self.members, change):
            if self.lives[one.id] not in (0, one.incarnation):
                raise AssertionError(f"{change} waits for {one}, which is gone")
        index = self.members.index + 1
        self.members = following(self.members, change, index)
        assert not self.over, "nobody is left to agree on this change"
        if self.members.joint:
            self.members = leaving_joint(self.members, index + 1)
            assert not self.over, "this change left nobody to agree on the next one"


@st.composite
def worlds(draw: st.DrawFn) -> World:
    numbers = draw(st.permutations(NODES))
    voting = draw(st.sampled_from((3, 5, 4, 2, 1)))
    learning = draw(st.integers(0, len(numbers) - voting))
    voters = tuple(Identity(number, number) for number in numbers[:voting])
    learners = [Identity(number, number) for number in numbers[voting : voting + learning]]
    wanted = draw(st.permutations(NODES))
    shall_vote = draw(st.integers(1, 3))
    shall_learn = draw(st.integers(0, 2))
    lives = {number: draw(st.sampled_from((0, number))) for number in NODES}
    for one in voters[: (voting - 1) // 2 if draw(st.booleans()) else 0]:  # a minority began anew
        lives[one.id] = one.incarnation + LATER
        if draw(st.booleans()):  # and learns already as what it is now
            learners.append(Identity(one.id, lives[one.id]))
    return World(
        Membership(1, voters, tuple(learners)),
        tuple(sorted(wanted[:shall_vote])),
        tuple(sorted(wanted[shall_vote : shall_vote + shall_learn])),
        lives,
    )


@settings(max_examples=400)
@given(worlds(), st.lists(st.tuples(st.integers(0, 12), st.sampled_from(NODES)), max_size=6))
def test_the_steps_end_with_the_listed_nodes_and_leave_a_majority_at_every_moment(
    world: World, news: list[tuple[int, int]]
) -> None:
    """Whoever begins anew between two steps: the listed nodes are members at the end, each as what it is by then."""
    for step in range(STEPS_MAX):
        for _, number in (one for one in news if one[0] == step):
            world.begin_anew(number)
        change = world.next_change()
        if change is not None:
            world.carry_out(change)
        elif step >= max([0, *(one[0] for one in news)]):
            break
    else:
        raise AssertionError("the steps do not end")
    before = world.members
    assert len({one.id for one in members_of(before)}) == len(members_of(before))
    for one in members_of(before):
        if one.id in (*world.voters, *world.learners):
            assert world.lives[one.id] in (0, one.incarnation)
    heard = {number for number in (*world.voters, *world.learners) if world.lives[number]}
    voting, learning = {one.id for one in before.voters}, {one.id for one in before.learners}
    assert heard <= voting | learning
    assert heard & set(world.voters) <= voting
    if heard & set(world.voters):
        assert voting <= set(world.voters) and learning <= set(world.learners)


def test_who_is_gone_leaves_before_who_is_there() -> None:
    """Three of five live, and only one of the five is to stay: each removal leaves a majority of who remains."""
    five = tuple(Identity(number, number) for number in range(1, 6))
    world = World(Membership(1, five), (3,), (), {1: 1, 2: 2, 3: 3, 4: 4 + LATER, 5: 5 + LATER, 6: 0})
    gone = []
    while (change := world.next_change()) is not None:
        gone.append(change.members[0].id)
        world.carry_out(change)
    assert gone == [4, 5, 1, 2]


def test_nothing_is_changed_while_a_change_is_under_way() -> None:
    """A joint configuration is left by its leader, before anything else."""
    one, two = Identity(1, 1), Identity(2, 2)
    assert next_change(Membership(5, (one, two), (), (one,)), (1,), (), lambda _number: 9) is None


@given(st.lists(st.booleans(), min_size=1, max_size=7))
def test_a_group_is_over_when_no_majority_can_live_as_what_it_was(forgot: list[bool]) -> None:
    """Nodes that were not heard of may be there; half of the voters is no majority."""
    voters = tuple(Identity(number, 1) for number in range(1, len(forgot) + 1))
    lives = {number + 1: 2 if gone else number % 2 for number, gone in enumerate(forgot)}
    over = 2 * sum(forgot) >= len(voters)
    assert is_over(Membership(1, voters), lives.__getitem__) is over
    other = (Identity(99, 1),)
    assert is_over(Membership(1, other, (), voters), lambda number: lives.get(number, 1)) is over


def test_of_the_past_is_who_a_member_was_before_and_nobody_else() -> None:
    """Not the member itself, not its next incarnation, not a stranger; nor the old voter of who learns already."""
    members = Membership(1, (Identity(1, 10), Identity(2, 10)), (Identity(2, 20),))
    past = [one for one in (Identity(1, 9), Identity(1, 10), Identity(1, 11), Identity(2, 9), Identity(2, 10),
                            Identity(2, 15), Identity(3, 1)) if is_of_the_past(members, one)]  # fmt: skip
    assert past == [Identity(1, 9), Identity(2, 9), Identity(2, 15)]


def test_a_voter_that_is_to_learn_and_began_anew_learns_as_what_it_is_now() -> None:
    """It takes its own place first: so the old incarnation never stays, and the quorum is never smaller."""
    world = World(Membership(1, (Identity(1, 1), Identity(2, 2), Identity(3, 3))), (1, 2), (3,),
                  {1: 1, 2: 2, 3: 103, 4: 0, 5: 0, 6: 0})  # fmt: skip
    kinds = []
    while (change := world.next_change()) is not None:
        kinds.append(change.kind)
        world.carry_out(change)
    assert kinds == [ChangeKind.ADD_LEARNER, ChangeKind.REPLACE, ChangeKind.DEMOTE]
    assert world.members.learners == (Identity(3, 103),)
