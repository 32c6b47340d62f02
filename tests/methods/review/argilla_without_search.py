"""Start argilla-server 2.8.0 on a port of loopback without a search service and without Redis: `python THIS PORT`.

Runs in the server's environment, not findistill's. The search index is replaced by one that stores nothing: a review only
creates, lists and answers records, which the database handles.
"""

import sys

import fakeredis
import redis
import uvicorn

redis.from_url = lambda url, **_: fakeredis.FakeRedis()

from argilla_server.search_engine.base import SearchEngine  # noqa: E402  # it connects to Redis


async def nothing(*_: object, **__: object) -> dict:
    return {}


class NoIndex(SearchEngine):
    @classmethod
    async def new_instance(cls) -> "NoIndex":
        return cls()

    async def ping(self) -> bool:
        return True


# Every index operation succeeds and stores nothing.
for name in SearchEngine.__abstractmethods__ - {"new_instance", "ping"}:
    setattr(NoIndex, name, nothing)
NoIndex.__abstractmethods__ = frozenset()
SearchEngine.register(engine_name="none")(NoIndex)

if __name__ == "__main__":
    uvicorn.run("argilla_server:app", host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
