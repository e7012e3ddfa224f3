"""Many ranks and workers that read from one store whose rate is limited, event by event; used by `pretrain_data.py`.

Every worker does what `pretrain.data.batches` lets it do: its rank's jobs w, w + W, w + 2W ..., one after the other, as
long as no more than `workers * prefetch_factor` of the rank are ahead of what was trained on. A job waits for the
store, which serves one request after the other at its rate (bytes, or single reads, whatever takes longer), then a
latency that is exponentially distributed, and then decodes. A step begins when every rank has its samples in order and
the step before has ended everywhere, as gradients are averaged.

What is left out: caches of nodes and servers, the network between, and what goes wrong. So it says what a store must
deliver at least, and how much of it the readers reach.
"""

import heapq
import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cluster:
    """What is simulated.

    Attributes:
        ranks: Training processes.
        workers: Of each.
        samples: Of a rank and step.
        prefetch_factor: Jobs that a worker may be ahead, as of torch's loader.
        step_s: Seconds of a step that waits for nothing.
        decode_s: Seconds of a core for a sample.
        bytes: Of the store for a sample.
        reads: Of the store for a sample.
        bytes_per_s: What the store delivers, to all together.
        reads_per_s: Likewise; infinite where only bytes count.
        latency_s: Mean of what a sample waits besides.
    """

    ranks: int
    workers: int
    samples: int
    prefetch_factor: int
    step_s: float
    decode_s: float
    bytes: float
    reads: float
    bytes_per_s: float
    reads_per_s: float
    latency_s: float

    @property
    def most_samples_per_s(self) -> float:
        """What no schedule exceeds: the steps, the store, or the workers."""
        return min(
            self.ranks * self.samples / self.step_s,
            self.bytes_per_s / self.bytes,
            self.reads_per_s / self.reads,
            self.ranks * self.workers / (self.decode_s + self.latency_s),
        )


@dataclass
class _Rank:
    next_job: list[int]  # of every worker
    idle: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    trained: int = 0


class _Simulation:
    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._random = random.Random(seed)
        self._ranks = [_Rank(list(range(cluster.workers)), set(range(cluster.workers))) for _ in range(cluster.ranks)]
        self._events: list[tuple[float, int, int]] = []  # when a job is done: time, rank, worker
        self._store_free = 0.0
        self._waiting_for = cluster.ranks

    def run(self, steps: int) -> list[float]:
        """Returns when each step began."""
        begun, step_ends = list[float](), 0.0
        for rank in range(self._cluster.ranks):
            self._start_idle(rank, 0.0)
        while len(begun) < steps:
            now, number, worker = heapq.heappop(self._events)
            if worker < 0:  # the step has ended: its samples make room
                step_ends = now
            else:
                self._finish(number, worker, now)
            if now >= step_ends and self._waiting_for == 0:
                begun.append(now)
                step_ends = now + self._cluster.step_s
                heapq.heappush(self._events, (step_ends, 0, -1))
                self._take(now)
        return begun

    def _finish(self, number: int, worker: int, now: float) -> None:
        rank = self._ranks[number]
        had = self._has_step(rank)
        rank.done.add(rank.next_job[worker])
        rank.next_job[worker] += self._cluster.workers
        self._waiting_for -= self._has_step(rank) - had
        rank.idle.add(worker)
        self._start_idle(number, now)

    def _take(self, now: float) -> None:
        """Every rank takes the samples of a step."""
        for number, rank in enumerate(self._ranks):
            rank.done -= set(range(rank.trained, rank.trained + self._cluster.samples))
            rank.trained += self._cluster.samples
            self._start_idle(number, now)
        self._waiting_for = sum(not self._has_step(rank) for rank in self._ranks)

    def _has_step(self, rank: _Rank) -> bool:
        return all(job in rank.done for job in range(rank.trained, rank.trained + self._cluster.samples))

    def _start_idle(self, number: int, now: float) -> None:
        cluster, rank = self._cluster, self._ranks[number]
        ahead = rank.trained + cluster.workers * cluster.prefetch_factor
        for worker in [worker for worker in rank.idle if rank.next_job[worker] < ahead]:
            rank.idle.remove(worker)
            takes = max(cluster.bytes / cluster.bytes_per_s, cluster.reads / cluster.reads_per_s)
            self._store_free = max(self._store_free, now) + takes
            done = self._store_free + self._random.expovariate(1 / cluster.latency_s) + cluster.decode_s
            heapq.heappush(self._events, (done, number, worker))


def simulate(cluster: Cluster, steps: int = 60, seed: int = 0) -> dict[str, float]:
    """Returns samples per second and the share of the time that waits for data, after the first third of the steps."""
    begun = _Simulation(cluster, seed).run(steps)
    first = steps // 3
    seconds, number = begun[-1] - begun[first], steps - 1 - first
    rate = number * cluster.ranks * cluster.samples / seconds
    return {
        "samples_per_s": rate,
        "data_wait": max(0.0, 1 - number * cluster.step_s / seconds),
        "of_what_is_possible": rate / cluster.most_samples_per_s,
        "first_step_after_s": begun[0],
    }
