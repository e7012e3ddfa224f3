"""CT-RATE's reader on a tiny random RoBERTa in its files, next to transformers by hand."""

import numpy as np
import pytest
import torch
from transformers import RobertaConfig, RobertaModel

from tapct.encoders.weights import content_sha256
from tapct.errors import WeightsError
from tapct.report_texts.radbert import BACKBONE, RadBERT
from tapct.report_texts.reader import ReadTexts, text_sha256
from tapct.tasks.ct_rate_release import FINDINGS
from tests.data import report_reader

TEXTS = {
    'Trachea is "open". Pleural effusion; 4 mm nodule.': [n % 2 for n in range(18)],
    "No effusion.": [0] * 18,
    "Emphysema, emphysema: hiatal hernia " * 200: [n % 3 == 0 for n in range(18)],
    "": [1] * 18,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return report_reader.write(tmp_path_factory.mktemp("reader"), TEXTS)


@pytest.fixture(scope="module")
def reader(files):
    return RadBERT(*files)


def spoilt(files, tmp_path, **changes):
    """The file of weights with other tensors; None takes one out."""
    state = torch.load(files.weights, weights_only=True)
    state = {name: value for name, value in {**state, **changes}.items() if value is not None}
    torch.save(state, tmp_path / "spoilt.pth")
    return tmp_path / "spoilt.pth"


def test_it_gives_what_the_authors_code_would(files, reader):
    """One text at a time, padded to 512 tokens, the linear layer by hand."""
    state = torch.load(files.weights, weights_only=True)
    network = RobertaModel(RobertaConfig.from_pretrained(files.backbone)).eval()
    network.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.") and "position_ids" not in k})
    for text, found in zip(TEXTS, reader.probabilities(list(TEXTS)), strict=True):
        pooled = report_reader.output(network, files.backbone, text)[0]
        logits = state["classifier.weight"].double() @ pooled.double() + state["classifier.bias"].double()
        np.testing.assert_allclose(found, torch.sigmoid(logits).numpy(), atol=1e-5)
    assert reader.findings == FINDINGS
    assert ReadTexts(reader).findings(list(TEXTS)).tolist() == [[float(one) for one in row] for row in TEXTS.values()]


def test_what_is_beyond_512_tokens_is_not_read(reader):
    long = "Emphysema, emphysema: hiatal hernia " * 200
    both = reader.probabilities([long, long + "Pleural effusion."])
    np.testing.assert_array_equal(both[0], both[1])


def test_it_says_which_reader_it_is(files, reader, tmp_path):
    about = reader.describe()
    state = torch.load(files.weights, weights_only=True)
    del state["model.embeddings.position_ids"]
    assert about["weights_sha256"] == content_sha256(state)
    assert (about["threshold"], about["most_tokens"]) == (0.5, 512)
    newer = RadBERT(spoilt(files, tmp_path, **{"model.embeddings.position_ids": None}), files.backbone)
    assert newer.describe() == about  # newer releases of transformers write no positions
    other = RadBERT(spoilt(files, tmp_path, **{"classifier.bias": torch.ones(18)}), files.backbone)
    assert other.describe() != about


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.embeddings.position_ids": torch.arange(514).flip(0)}, "is not 0, 1, 2"),
        ({"classifier.weight": torch.zeros(20, 64), "classifier.bias": torch.zeros(20)}, r"\(20, 64\) instead of \(18"),
        ({"model.pooler.dense.weight": None}, r"1 missing: model\.pooler\.dense\.weight"),
        ({"model.lm_head.bias": torch.zeros(3)}, r"1 unexpected: model\.lm_head\.bias"),
    ],
)
def test_weights_that_are_not_its_own_are_refused(changes, message, files, tmp_path):
    with pytest.raises(WeightsError, match=message):
        RadBERT(spoilt(files, tmp_path, **changes), files.backbone)


def test_a_file_that_would_run_code_or_is_not_there_is_refused(files, tmp_path):
    torch.save(RobertaModel(RobertaConfig.from_pretrained(files.backbone)), tmp_path / "whole.pth")
    with pytest.raises(WeightsError, match="hold pickled objects, which are refused"):
        RadBERT(tmp_path / "whole.pth", files.backbone)
    with pytest.raises(WeightsError, match=r"there is no file .*none\.pth .*READER_WEIGHTS"):
        RadBERT(tmp_path / "none.pth", files.backbone)
    with pytest.raises(WeightsError, match=r"no config and tokenizer that can be read .*READER_BACKBONE"):
        RadBERT(files.weights, tmp_path)
    with pytest.raises(WeightsError, match=r"there is no folder \./none .*READER_BACKBONE"):
        RadBERT(files.weights, "./none")


def test_what_was_fetched_is_read_without_a_network_and_else_the_error_says_how(files, tmp_path, monkeypatch):
    for module in ("huggingface_hub.constants", "huggingface_hub.file_download"):
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE.*It is gated.*READER_WEIGHTS"):
        RadBERT()
    with pytest.raises(WeightsError, match=rf"backbone .*HF_HUB_OFFLINE.*{BACKBONE}.*READER_BACKBONE"):
        RadBERT(files.weights)
    for folder, names in (
        ("models--zzxslp--RadBERT-RoBERTa-4m", ("config.json", "vocab.json", "merges.txt")),
        ("datasets--ibrahimhamamci--CT-RATE", ("models/RadBertClassifier.pth",)),
    ):
        snapshot = tmp_path / "hub" / folder / "snapshots" / ("a" * 40)
        (snapshot.parents[1] / "refs").mkdir(parents=True)
        (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
        for name in names:
            source = files.weights if name.endswith("pth") else files.backbone / name
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).write_bytes(source.read_bytes())
    assert RadBERT().describe() == RadBERT(*files).describe()


class Counting(RadBERT):
    """Counts the texts that it reads."""

    def probabilities(self, texts):
        self.asked = [*getattr(self, "asked", []), *texts]
        return super().probabilities(texts)


def test_each_text_is_read_once_whoever_asks(files, tmp_path):
    reader, texts = Counting(*files), list(TEXTS)
    found = ReadTexts(reader, tmp_path).findings([texts[0], texts[1], texts[0]])
    assert reader.asked == texts[:2]
    assert found[0].tolist() == found[2].tolist()
    again = ReadTexts(reader, tmp_path)
    np.testing.assert_array_equal(again.probabilities(texts)[:2], ReadTexts(reader, tmp_path).probabilities(texts[:2]))
    assert reader.asked == texts
    other = Counting(spoilt(files, tmp_path, **{"classifier.bias": torch.ones(18)}), files.backbone)
    ReadTexts(other, tmp_path).findings(texts[:1])
    assert other.asked == texts[:1]  # another reader reads for itself


def test_what_is_kept_is_no_text_and_what_is_damaged_is_read_again(files, tmp_path):
    reader, texts = Counting(*files), list(TEXTS)[:2]
    wanted = ReadTexts(reader, tmp_path).findings(texts)
    (path,) = tmp_path.rglob("*.npz")
    assert b"effusion" not in path.read_bytes()
    path.write_bytes(path.read_bytes()[:-20])
    np.testing.assert_array_equal(ReadTexts(reader, tmp_path).findings(texts), wanted)
    assert reader.asked == [*texts, *texts]
    assert len(text_sha256(texts[0])) == 64
