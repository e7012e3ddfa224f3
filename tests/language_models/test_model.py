"""What a frozen language model says of reports, next to transformers' own loss; and LoRA next to its formula."""

import copy
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from tapct.errors import TaskError, WeightsError
from tapct.language_models.batches import Prompt, report_tokens
from tapct.language_models.files import find
from tapct.language_models.model import LanguageModel, Lora
from tests.language_models import tiny
from tests.language_models.conftest import rows

REPORTS = ("There is an effusion.", "No nodule.", "The heart is large. There is no effusion, and no nodule is seen.")


def reports(model, most=100):
    return [report_tokens(text, model.tokenizer, most) for text in REPORTS]


def test_the_loss_of_a_report_is_that_of_transformers_alone_and_in_a_batch(model):
    prompts, texts = rows(model, (3, 9, 5)), reports(model)
    found = model.losses(prompts, texts)
    network = AutoModelForCausalLM.from_pretrained(model.files.folder, dtype=torch.float64)
    for loss, prompt, text in zip(found, prompts, texts, strict=True):
        embedded = network.get_input_embeddings()(torch.tensor(text))
        labels = torch.tensor([[-100] * len(prompt) + text])  # nothing is asked of the prompt
        expected = network(inputs_embeds=torch.cat([prompt.double(), embedded])[None], labels=labels).loss
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert model.losses([prompt], [text]).item() == pytest.approx(loss.item(), rel=1e-5)


def test_the_end_of_text_is_learnt_and_a_cut_report_has_none(model):
    whole, cut = report_tokens(REPORTS[0], model.tokenizer, 100), report_tokens(REPORTS[0], model.tokenizer, 4)
    assert whole[-1] == model.end == model.tokenizer.convert_tokens_to_ids(model.tokenizer.eos_token)
    assert cut == whole[:4]
    assert model.end not in cut
    assert report_tokens("", model.tokenizer, 4) == [model.end]


def test_the_name_of_a_special_token_in_a_report_is_text(model):
    text = f"Reads {model.tokenizer.eos_token} and <s>."
    tokens = report_tokens(text, model.tokenizer, 100)
    assert tokens.count(model.end) == 1
    assert model.tokenizer.decode(tokens[:-1]) == text


def test_a_prompt_begins_as_the_model_expects_and_has_room_for_the_scan(model):
    prompt = Prompt.of("A scan: {scan}\nIts report:\n", model.tokenizer)
    begin = [] if model.begin is None else [model.begin]
    assert list(prompt.before[: len(begin)]) == begin
    assert model.tokenizer.decode(prompt.before[len(begin) :]) == "A scan: "
    assert model.tokenizer.decode(prompt.after) == "\nIts report:\n"
    for wrong in ("no place", "{scan} twice {scan}"):
        with pytest.raises(TaskError, match="once, where the tokens of the scan stand"):
            Prompt.of(wrong, model.tokenizer)


def test_nothing_of_it_has_a_gradient_and_a_copy_is_itself(model):
    (prompt,) = rows(model, (4,))
    prompt.requires_grad_()
    model.losses([prompt], reports(model)[:1]).sum().backward()
    assert prompt.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in model._network.parameters())
    assert copy.deepcopy(model) is model


def test_an_adapted_layer_adds_its_low_rank_product(adapted):
    """W + alpha / rank B A, written into the weights of a plain model."""
    rng = torch.Generator().manual_seed(1)
    adapter = {name: 0.3 * torch.randn(shape, generator=rng) for name, shape in adapted.adapter_shapes.items()}
    plain = LanguageModel(adapted.files)
    prompts, texts = rows(plain, (3, 6, 4)), reports(plain)
    before = plain.losses(prompts, texts)
    nothing = {name: torch.zeros_like(of) if "lora_B" in name else of for name, of in adapter.items()}
    assert torch.allclose(adapted.losses(prompts, texts, nothing), before)
    state = plain._network.state_dict()
    for name, low in adapter.items():
        if "lora_A" in name:
            layer = name.partition(".lora_A")[0]
            state[f"{layer}.weight"] += 6 / 3 * adapter[name.replace("lora_A", "lora_B")] @ low
    plain._network.load_state_dict(state)
    found = adapted.losses(prompts, texts, adapter)
    assert torch.allclose(found, plain.losses(prompts, texts), rtol=1e-4)
    assert (found - before).abs().min() > 1e-3


def test_the_gradient_reaches_the_adapter_and_nothing_else(adapted):
    adapter = {name: torch.ones(shape, requires_grad=True) for name, shape in adapted.adapter_shapes.items()}
    adapted.losses(rows(adapted, (3,)), reports(adapted)[:1], adapter).sum().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in adapter.values())
    assert all(p.grad is None for p in adapted._network.parameters())


def test_what_a_record_holds_tells_two_models_apart(folders, adapted, tmp_path):
    about = adapted.describe()
    assert about["name"] == "llama"
    assert about["lora"] == {"rank": 3, "alpha": 6, "targets": ["q_proj", "v_proj"]}
    assert about["parameters"] == LanguageModel(adapted.files).describe()["parameters"]
    other = tiny.write(tmp_path / "llama", seed=1)
    assert find(str(other)).name == find(str(folders["llama"])).name
    assert find(str(other)).sha256 != find(str(folders["llama"])).sha256


def test_lora_without_peft_says_how_to_get_it(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(TaskError, match=r"pip install 'tapct-bench\[lora\]'"):
        LanguageModel(find(str(folders["llama"])), lora=Lora())


def test_lora_on_layers_that_are_not_there_names_those_that_are(folders):
    with pytest.raises(TaskError, match=r"no linear layers called query\. It has .*'q_proj'"):
        LanguageModel(find(str(folders["llama"])), lora=Lora(targets=("q_proj", "query")))


def test_a_tokenizer_of_another_model_or_without_an_end_is_refused(tmp_path):
    folder = tiny.write(tmp_path / "small")
    of = tiny.tokenizer()
    of.add_tokens([f"word{n}" for n in range(9)])
    of.save_pretrained(folder)
    with pytest.raises(WeightsError, match="they are of two models"):
        LanguageModel(find(str(folder)))
    of = tiny.tokenizer()
    of.eos_token = None
    of.save_pretrained(folder)
    with pytest.raises(WeightsError, match="no end-of-text token"):
        LanguageModel(find(str(folder)))
