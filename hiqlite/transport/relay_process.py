"""A relay in a process of its own: it needs nothing of the interpreter, nor of the loop, of who tests with it.

A thread would share the interpreter's lock with the nodes; with their loop busy each byte then waits for milliseconds.
Knows processes; must not know nodes. Invariant: the process ends with its owner, however that ends.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from . import relay
from .relay import HOST, Pair, Target

ANSWER_S = 10.0


class RelayProcess:
    """See `Relay`; its ports are open, and connections to them wait, from the moment this one exists.

    Args:
        targets: (who dials, who is dialled) -> where that one listens.
    """

    def __init__(self, targets: Mapping[Pair, Target]) -> None:
        listening = {pair: socket.create_server((HOST, 0)) for pair in targets}
        self.ports: dict[Pair, int] = {pair: one.getsockname()[1] for pair, one in listening.items()}
        self._targets = targets
        self._turn = asyncio.Lock()
        self._words, theirs = socket.socketpair()
        edges = [(*pair, *targets[pair], one.fileno()) for pair, one in listening.items()]
        given = [theirs, *listening.values()]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", relay.__file__, json.dumps([theirs.fileno(), edges])],
                pass_fds=[one.fileno() for one in given],
            )
        except BaseException:
            self._words.close()
            raise
        finally:
            for one in given:
                one.close()
        self._words.setblocking(False)

    async def set(self, pairs: Iterable[Pair], mode: str, delay_s: float = 0.0) -> None:
        """Returns when it is so."""
        await self._tell({"edges": list(pairs), "mode": mode, "delay_s": delay_s})

    async def reset(self, one: int, other: int) -> None:
        await self._tell({"reset": [one, other]})

    async def heal(self) -> None:
        """Nothing is cut or slow any more."""
        await self.set([pair for one, other in self._targets for pair in ((one, other), (other, one))], "pass")

    async def close(self) -> None:
        """The process has ended, and with it all that it held."""
        loop = asyncio.get_running_loop()
        try:
            self._words.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(ANSWER_S):
                while await loop.sock_recv(self._words, 4096):
                    pass
        except (OSError, TimeoutError):
            self._process.kill()
        finally:
            self._words.close()
            self._process.wait()

    async def _tell(self, words: dict[str, Any]) -> None:
        """Also who stops waiting has said it whole, and takes the answer away: the next one gets its own."""
        await asyncio.shield(self._exchange(words))

    async def _exchange(self, words: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        async with self._turn, asyncio.timeout(ANSWER_S):
            await loop.sock_sendall(self._words, json.dumps(words).encode() + b"\n")
            if await loop.sock_recv(self._words, 1) != b"\n":
                raise ConnectionError("the relay has ended")
