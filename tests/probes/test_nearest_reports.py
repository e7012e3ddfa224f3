"""The report of the nearest training scan, and of those that vote: ties, patients, and brute force."""

import hashlib

import numpy as np
import pytest
import torch

from tapct.errors import FeatureError, TaskError
from tapct.metrics.retrieval import unit
from tapct.probes.nearest_reports import NearestReports, medoid, name_sha256, nearest_places, solve
from tapct.probes.solved import PooledCases

NAMES = [f"train_{n}_a" for n in range(40)]
PATIENTS = [f"train_{n // 2}" for n in range(40)]


def cases(features: np.ndarray, findings: np.ndarray | None = None, names=NAMES, patients=PATIENTS) -> PooledCases:
    number = len(features)
    findings = np.zeros((number, 3)) if findings is None else findings
    return PooledCases(names[:number], patients[:number], features, findings)


def picked(head: NearestReports, name: str, vector: np.ndarray, patient: str = "valid_1") -> str:
    hashed = head.pick(name, patient, unit(vector[None])[0])
    return next(name for name in NAMES if name_sha256(name) == hashed)


def test_the_nearest_one_is_that_of_the_largest_cosine_and_of_another_patient():
    random = np.random.default_rng(0)
    features = random.normal(size=(40, 6)) * random.uniform(0.1, 9, (40, 1))
    head = solve(cases(features), None, votes=False, metric="MacroF1").head
    for n in range(20):
        vector = random.normal(size=6)
        cosine = features @ vector / np.linalg.norm(features, axis=1)
        assert picked(head, f"valid_{n}_a", vector) == NAMES[int(cosine.argmax())]
        best = int(cosine.argmax())
        others = np.where(np.array(PATIENTS) == PATIENTS[best], -np.inf, cosine)
        assert picked(head, "x", vector, PATIENTS[best]) == NAMES[int(others.argmax())]
    with pytest.raises(TaskError, match="valid_1_a: all training scans are of its patient"):
        solve(cases(features[:2]), None, votes=False, metric="MacroF1").head.pick("valid_1_a", "train_0", features[0])


def test_tied_scans_are_drawn_by_the_hash_of_the_name_whatever_their_order():
    features, order = np.ones((40, 4)), np.random.default_rng(1).permutation(40)
    head = solve(cases(features), None, votes=False, metric="MacroF1").head
    shuffled = cases(features, names=[NAMES[i] for i in order], patients=[PATIENTS[i] for i in order])
    other = solve(shuffled, None, votes=False, metric="MacroF1").head
    by_hash = sorted(NAMES, key=lambda name: hashlib.sha256(name.encode()).digest())
    seen = set()
    for n in range(30):
        name = f"valid_{n}_a"
        place = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 40
        assert picked(head, name, np.ones(4)) == picked(other, name, np.ones(4)) == by_hash[place]
        seen.add(by_hash[place])
    assert len(seen) > 10


def test_ties_by_construction_do_not_reach_over_what_is_nearer():
    similarity = np.array([0.3, 0.9, 0.5, 0.5 + 1e-15, 0.5, 0.1])
    names = np.frombuffer(b"".join(map(name_sha256, NAMES[:6])), np.uint8).reshape(6, 32)
    for n in range(10):
        places = nearest_places(similarity, 5, f"valid_{n}", names).tolist()
        assert (places[0], sorted(places[1:4]), places[4]) == (1, [2, 3, 4], 0)
        assert nearest_places(similarity, 2, f"valid_{n}", names).tolist() == places[:2]
    assert nearest_places(similarity, 9).tolist() == [1, 2, 3, 4, 0, 5]


def test_a_tie_that_reaches_from_one_to_the_next_is_one_however_long_it_is():
    similarity = np.arange(4_000) * 0.9e-12
    hashes = np.arange(4_000, dtype=">u8").view(np.uint8).reshape(4_000, 8)
    place = int(hashlib.sha256(b"x").hexdigest(), 16) % 4_000
    assert nearest_places(similarity, 1, "x", hashes).tolist() == [place]


def test_the_one_that_fits_the_vote_best_is_found_by_brute_force():
    random = np.random.default_rng(2)
    for _ in range(50):
        findings = (random.random((random.integers(1, 9), 5)) < 0.4).astype(float)
        apart = [sum(np.abs(one - other).sum() for other in findings) for one in findings]
        assert medoid(findings) == apart.index(min(apart))


def planted(number: int, seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Scans of three sorts, each with findings of its own, of which some reports forget one."""
    random = np.random.default_rng(seed)
    sort = random.integers(0, 3, number)
    features = np.eye(3)[sort] + noise * random.normal(size=(number, 3))
    findings = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=float)[sort]
    forgets = random.random(number) < 0.4
    findings[forgets, random.integers(0, 3, forgets.sum())] = 0
    return features, findings


def test_who_votes_is_chosen_on_the_patients_that_decide_and_helps():
    features, findings = planted(40, 0, 0.1)
    own = [f"select_{n}" for n in range(20)]
    chosen = planted(20, 1, 0.1)
    solution = solve(cases(features, findings), cases(*chosen, own, own), votes=True, metric="MicroF1")
    about = solution.selection
    assert [one.setting for one in about.candidates] == [20, 10, 5, 3]
    assert about.score == max(one.score for one in about.candidates)
    assert about.patients == 20 + 20
    assert int(solution.head.neighbours) == about.setting
    vectors, truth = planted(30, 2, 0.1)
    alone = solve(cases(features, findings), None, votes=False, metric="MicroF1").head
    wrong = []
    for head in (solution.head, alone):
        given = [NAMES.index(picked(head, f"valid_{n}", vector)) for n, vector in enumerate(vectors)]
        wrong.append(np.abs(findings[given] - truth).sum())
    assert wrong[0] < wrong[1]


def test_a_head_holds_hashes_and_no_names():
    head = solve(cases(np.eye(4)), None, votes=False, metric="MacroF1").head
    state = head.state_dict()
    assert {name: tensor.dtype for name, tensor in state.items()} == {
        **{"cases": torch.float64, "names": torch.uint8, "patients": torch.uint8, "findings": torch.uint8},
        "neighbours": torch.int64,
    }
    assert state["names"][1].numpy().tobytes() == name_sha256(NAMES[1])


def test_features_that_are_not_finite_are_refused():
    features = np.eye(4)
    features[2, 1] = np.nan
    with pytest.raises(FeatureError, match="train_2_a: its features are not finite"):
        solve(cases(features), None, votes=False, metric="MacroF1")
