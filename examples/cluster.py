"""Three members of one cluster in one process, for tests and for a first look."""

import asyncio

import hiqlite.testing


async def main() -> None:
    async with hiqlite.testing.cluster(3) as cluster:
        db = cluster.nodes[1]  # any node will do: writes travel to the leader
        await db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
        async with db.atomic() as t:
            account = t.execute("INSERT INTO accounts (balance) VALUES (100) RETURNING id")
            t.execute("UPDATE accounts SET balance = balance - 30 WHERE id = ?", [account["id"]]).expect(rows=1)
        for node in cluster.nodes.values():
            print(await node.query_value("SELECT balance FROM accounts", consistency="linearizable"))


asyncio.run(main())
