"""An HTTP server on this machine that serves a folder as object storage does: ranges, ETags; and fails on demand."""

import asyncio
import threading
from collections import deque
from pathlib import Path

from aiohttp import web


class Server:
    """Serves a folder from a thread.

    Attributes:
        url: Of the folder.
        asked: Method, path and range of every request so far.
        failures: Statuses that the next requests get instead of an answer; 0 ends the connection, -1 lets it wait.
        refuse: Paths that nobody may read.
    """

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        self.failures: deque[int] = deque()
        self.refuse: set[str] = set()
        self._folder, self._ranges = folder, ranges
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(20)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def fetched(self, name: str = "") -> list[tuple[str, str, str | None]]:
        """Returns the requests for the content of files whose paths hold a name."""
        return [request for request in self.asked if request[0] == "GET" and name in request[1]]

    def sent_bytes(self) -> int:
        """Returns how many bytes were asked for by ranges."""
        spans = [span.removeprefix("bytes=").split("-") for _, _, span in self.fetched() if span]
        return sum(int(last) - int(first) + 1 for first, last in spans)

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())

    async def _start(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        self.asked.append((request.method, path, request.headers.get("Range")))
        if self.failures:
            status = self.failures.popleft()
            if status == -1:
                await asyncio.sleep(3600)
            if status:
                return web.Response(status=status)
            request.transport.close()
            return web.Response()
        if path in self.refuse:
            return web.Response(status=403)
        if not (self._folder / path).is_file():
            return web.Response(status=404)
        if self._ranges:
            return web.FileResponse(self._folder / path)
        return web.Response(body=(self._folder / path).read_bytes())
