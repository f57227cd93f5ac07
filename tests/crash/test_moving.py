"""Members that move to other ports, and a second process on a member's folder, on real processes under load."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import CREATE, Member, Members, acknowledged, begin_load, noted

from hiqlite.transport.loopback import HOST, hold_ports

pytestmark = pytest.mark.timeout(180)


async def test_members_move_one_by_one_while_writes_go_on(tmp_path: Path) -> None:
    """Each changes its own line in its own config, and is restarted; the others hear of it from the node itself."""
    held = hold_ports(6)
    try:
        async with Members(tmp_path) as members:
            await members.start()
            await (await members.leader()).do(do="execute", sql=CREATE)
            ports = iter(one.getsockname()[1] for one in held)
            files: list[Path] = []
            for number, member in members.all.items():
                others = [other for other in members.all if other != number]
                await member.stop()
                files += await begin_load(members, 4)
                nodes = list(member.config["nodes"])
                nodes[number - 1] = f"{number} {HOST}:{next(ports)} {HOST}:{next(ports)}"
                member.config["nodes"] = nodes
                await acknowledged(files, 200 * number)
                await members.start(number)
                await acknowledged(files, noted(files) + 100)
                assert await members.end_load() == {other: {} for other in others}
            for number, member in members.all.items():
                await member.do(do="execute", sql="INSERT INTO load VALUES (?, 0, '')", params=[-number])
            await members.check_acknowledged(*files)
            await members.check_equal()
            await members.in_order()
            for member in members.all.values():  # each knows where the others are now, whatever its config says
                await member.stop()
                await members.start(member.config["node_id"])
            await members.check_equal()
            await members.in_order()
    finally:
        for one in held:
            one.close()


async def test_a_second_process_on_a_members_folder_ends_and_harms_nothing(tmp_path: Path) -> None:
    """Under its own name and ports, or as another node: it says that the folder is in use."""
    async with Members(tmp_path) as members:
        await members.start()
        await (await members.leader()).do(do="execute", sql=CREATE)
        files = await begin_load(members, 4)
        await acknowledged(files, 200)
        for number in (1, 2):
            second = Member({**members.all[number].config, "data_dir": str(members.all[1].folder)}, keep_errors=True)
            second.errors = tmp_path / f"second-{number}"
            await second.start()
            assert second.process is not None
            assert await second.process.wait() != 0
            assert "DataFolderInUse" in second.errors.read_text()
            await second.kill()
        await acknowledged(files, noted(files) + 200)
        assert await members.end_load() == {1: {}, 2: {}, 3: {}}
        await members.check_acknowledged(*files)
        await members.check_equal()
        await members.in_order()
