"""Compiled code that computes something else is noticed before the first step; shapes that never change are fixed."""

import pytest
import torch
from torch._dynamo import utils as dynamo

from pretrain.data.counters import Stream, generator
from pretrain.data.masking import block_masks
from pretrain.distributed import World
from pretrain.errors import PretrainError
from pretrain.observe.monitor import read_events
from pretrain.ssl.model import Pretrainer
from pretrain.ssl.prototypes import ChunkTerms, chunk_terms
from pretrain.training.selftest import check_compiled, differences, loss_rows
from tests.pretrain.runs import logged, run_here
from tests.pretrain.tiny import random_batch, tiny_config

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)


def miscompile(monkeypatch, of_block=lambda out: out, of_terms=lambda terms, gradient: terms):
    """Compiles to code that does something to the results."""

    def compiled(function, **options):
        if function is not chunk_terms:
            return lambda *arguments: of_block(function(*arguments))
        return lambda gradient, *others: of_terms(chunk_terms(gradient, *others), gradient)

    monkeypatch.setattr(torch, "compile", compiled)


def compiled_model(*more: str) -> Pretrainer:
    return Pretrainer(tiny_config("run.compile=true", "model.drop_path_rate=0.4", *more))


def one_wrong_sample(out):
    return torch.cat((out[:-1], out[-1:] * 1.1))


def twice_the_gradient(out):
    return 2 * out - out.detach()


def wrong_loss(terms, gradient):
    return ChunkTerms(terms.loss * 1.05, terms.entropy)


def wrong_entropy(terms, gradient):
    return ChunkTerms(terms.loss, torch.full_like(terms.entropy, torch.nan))


def wrong_gradient(terms, gradient):
    gradient[-1].zero_()
    return terms


def no_compiler(out):
    raise RuntimeError("no C++ compiler\nfound in PATH")


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({}, []),
        ({"of_block": one_wrong_sample}, ["a block on global crops", "a block on local crops"]),
        ({"of_block": twice_the_gradient}, ["a block on global crops", "a block on local crops"]),
        ({"of_block": no_compiler}, ["a block on global crops", "a block on local crops"]),
        ({"of_terms": wrong_loss}, ["the loss of 6 rows", "the loss of 8 rows", "the loss of 11 rows"]),
        ({"of_terms": wrong_entropy}, ["the loss of 6 rows", "the loss of 8 rows", "the loss of 11 rows"]),
        ({"of_terms": wrong_gradient}, ["the loss of 6 rows", "the loss of 8 rows", "the loss of 11 rows"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else next((f.__name__ for f in value.values()), "nothing"),
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_computed_otherwise_is_found(monkeypatch, wrong, found, precision):
    miscompile(monkeypatch, **wrong)
    model = compiled_model(f"run.precision={precision}")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert [words.split(" is off")[0].split(" cannot")[0] for words in differences(model, CPU)] == found
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_refuses_falls_back_or_does_not_look(monkeypatch):
    miscompile(monkeypatch, of_block=no_compiler)
    with pytest.raises(
        PretrainError, match=r"a block on global crops cannot be compiled \(no C\+\+ compiler\).*compile=false"
    ):
        check_compiled(compiled_model(), ALONE)
    assert check_compiled(compiled_model("run.compile_check=skip"), ALONE) is None
    assert check_compiled(Pretrainer(tiny_config("run.compile=false")), ALONE) is None
    model = compiled_model("run.compile_check=fall_back")
    assert "falls back to plain code" in check_compiled(model, ALONE)
    plain = Pretrainer(tiny_config("run.compile=false", "model.drop_path_rate=0.4"))
    one, other = (
        m.forward_backward(random_batch(m.config, torch.float32), teacher_temperature=0.05, scale=1.0).total
        for m in (model, plain)
    )
    assert torch.equal(one, other)


def test_a_run_refuses_or_falls_back_aloud(monkeypatch, store, tmp_path, capsys):
    miscompile(monkeypatch, of_terms=wrong_loss)
    small = ("--run.micro_batches=1", "--run.steps=3")
    ours = ("--run.compile=true", *small)
    assert run_here(store, tmp_path / "refused", *ours) == 1
    assert "the loss of 4 rows is off by 0.05 (at most 0.0001)" in capsys.readouterr().err
    assert not list((tmp_path / "refused" / "checkpoints").iterdir())
    assert run_here(store, tmp_path / "fallen", *ours, "--run.compile_check=fall_back") == 0
    (told,) = (event for event in read_events(tmp_path / "fallen") if event["event"] == "plain")
    assert "falls back to plain code" in told["message"]
    assert run_here(store, tmp_path / "plain", "--run.compile=false", *small) == 0
    assert logged(tmp_path / "fallen") == logged(tmp_path / "plain")


@pytest.mark.parametrize(
    ("options", "teacher_blocks"),
    [
        ((), 1),
        pytest.param(("masking.drop=0.375",), 1, marks=pytest.mark.thorough),  # as in the two phases
        (("early.global_size=[4, 16, 32]", "early.local_size=[4, 8, 16]", "masking.drop=0.25"), 2),
    ],
    ids=["plain", "patches left out", "two phases"],
)
def test_every_shape_is_compiled_by_itself_and_the_self_test_meets_all(monkeypatch, options, teacher_blocks):
    """By the compiler's front end alone: what it hands to the back end, which here runs it as it is."""
    shapes: list[tuple] = []

    def back_end(graph, inputs):
        shapes.append(tuple(tuple(x.shape) for x in inputs if isinstance(x, torch.Tensor)))
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *given, **options: compile_(*given, backend=back_end, **options))
    torch.compiler.reset()
    phases = [phase for _, phase in tiny_config("run.compile=true", "model.drop_path_rate=0.4", *options).phases]
    assert differences(Pretrainer(phases[0]), CPU, phases) == []
    tested = len(shapes)
    for config in phases:
        model = Pretrainer(config)
        for step in range(3):
            draw = generator(0, step, 0, Stream.MASKS)
            masks = block_masks(2 * config.run.micro_batch_size, config.global_grid, config.masking, draw)
            batch = random_batch(config, torch.float32, masks, seed=step)
            model.forward_backward(batch, teacher_temperature=0.05, scale=1.0)
    torch.compiler.reset()
    assert len(shapes) == len(set(shapes)) == tested + teacher_blocks
    assert all(isinstance(size, int) for graph in shapes for shape in graph for size in shape)


def test_the_recipes_losses_have_four_shapes():
    from pretrain.settings import load_config
    from tests.pretrain.tiny import CONFIGS

    config = load_config(CONFIGS / "tap_b_3d.yaml")
    # 2 x 32 class tokens, against 8 x 2 x 32; 22,576 masked patches are eleven chunks of 2,048 and 48 rows.
    assert loss_rows(config) == [64, 512, 2048 + 48]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_inductor_on_a_cpu_computes_what_the_plain_code_says(precision):
    torch.compiler.reset()
    dynamo.counters.clear()
    model = compiled_model(f"run.precision={precision}")
    assert differences(model, CPU) == []
    assert dynamo.counters["stats"]["unique_graphs"] == 6
