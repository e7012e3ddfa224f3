"""What a sample costs that is read from a URL: from a server on this machine, and from the cache, against a folder.

    python benchmarks/pretrain_remote.py [--config pretrain/configs/tap_b_3d.yaml] [--samples 60] [--latency-ms 0 30]

The volumes are those of `pretrain_data.py`, in one shard. The server is a process of its own, which waits so long
before each answer; object storage takes tens of milliseconds. "cold" empties the cache before every sample (not
measured), so that all of it is fetched and kept; "warm" reads the same samples again. Times are of one process that
reads one sample after the other, on the wall and of its processor; a run has many that wait next to each other.
"""

import argparse
import asyncio
import json
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from pretrain_data import ROOT, make_store, make_volumes

from pretrain.config import Config
from pretrain.data.identity import StoreIdentity
from pretrain.data.index import read_index
from pretrain.data.locations import open_store
from pretrain.data.reader import ReadJob, SampleReader
from pretrain.data.shards import pack
from pretrain.settings import load_config
from tapct.records import environment


def serve(folder: Path, latency_s: float, parent: Connection) -> None:
    """Serves a folder until it is ended; sends its port."""

    @web.middleware
    async def wait(request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        await asyncio.sleep(latency_s)
        return await handler(request)

    async def start() -> None:
        application = web.Application(middlewares=[wait])
        application.router.add_static("/", folder)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        parent.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(start())


def cost(reader: SampleReader, samples: int, before: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Milliseconds of a sample, on the wall and of the processor."""
    reader[ReadJob(0, 0, 0)]
    wall_s = processor_s = 0.0
    for n in range(samples):
        before()
        wall, processor = time.perf_counter(), time.process_time()
        reader[ReadJob(n, 0, 0)]
        wall_s += time.perf_counter() - wall
        processor_s += time.process_time() - processor
    return {"wall_ms": wall_s / samples * 1e3, "processor_ms": processor_s / samples * 1e3}


def reader_of(config: Config) -> SampleReader:
    return SampleReader(config, StoreIdentity.of(open_store(config.data)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "pretrain" / "configs" / "tap_b_3d.yaml")
    parser.add_argument("--volumes", type=int, default=2)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[0.0, 30.0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder, sources, cache = (Path(temporary) / name for name in ("store", "in", "cache"))
        sources.mkdir()
        make_volumes(sources, given.volumes)
        make_store(folder, sources)
        rows = read_index(folder)
        pack(folder, rows, [[rows[key] for key in sorted(rows)]])
        figures["folder"] = cost(reader_of(load_config(given.config, [f"data.store={folder}"])), given.samples)
        for latency_ms in given.latency_ms:
            here, there = multiprocessing.Pipe()
            server = multiprocessing.Process(target=serve, args=(folder, latency_ms / 1e3, there), daemon=True)
            server.start()
            settings = [f"data.store=http://127.0.0.1:{here.recv()}", f"data.cache={cache}"]
            reader = reader_of(load_config(given.config, settings))

            def empty() -> None:
                shutil.rmtree(cache / "blocks")
                (cache / "blocks").mkdir()

            name = f"http, {latency_ms:g} ms"
            figures[f"{name}, cold"] = cost(reader, given.samples, empty)
            cost(reader, given.samples)  # the cold ones were thrown away
            figures[f"{name}, warm"] = cost(reader, given.samples)
            server.kill()
            server.join()
    print(json.dumps(figures, indent=1))
    if given.json:
        record = {"figures": figures, "environment": environment(torch.device("cpu"))}
        given.json.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
