"""A single node in this process: nothing to install or start beside it."""

import asyncio

import hiqlite


async def main() -> None:
    async with hiqlite.open("./data") as db:
        await db.execute("CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        await db.execute("INSERT INTO users (name) VALUES (?)", ["eve"])
        print(await db.query("SELECT * FROM users"))


asyncio.run(main())
