"""The moving average: its numbers, and the model that wears it for a while."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from detlite.engine import ModelEMA


def small_model(dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return model.to(dtype=dtype)


def move(model, amount=1.0):
    with torch.no_grad():
        for value in model.state_dict().values():
            value += amount if value.is_floating_point() else 1


def test_the_average_is_that_of_the_formula():
    model = small_model()
    ema = ModelEMA(model, decay=0.9, warmup=4)
    expected = {name: value.double().clone() for name, value in model.state_dict().items()}
    for step in range(5):
        move(model)
        ema.update(model)
        decay = min(0.9, (1 + step) / (4 + step))
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    for name, value in ema.weights.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-6, atol=1e-6)
    # A count is no quantity to average.
    assert ema.weights["1.num_batches_tracked"].item() == 5
    assert ema.updates == 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_steps_of_short_weights_are_not_lost(dtype):
    model = small_model(dtype)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    ema = ModelEMA(model, decay=0.9999)
    with torch.no_grad():
        model[0].weight.fill_(1.5)
    for _ in range(100):
        ema.update(model)
    # In bfloat16 the average would stay at 1 for ever.
    expected = 1.5 - 0.5 * 0.9999**100
    assert ema.weights["0.weight"].mean().item() == pytest.approx(expected, rel=1e-5)
    with ema.applied(model):
        assert model[0].weight.dtype == dtype
        assert model(torch.zeros(1, 3, 4, 4, dtype=dtype)).dtype == dtype


def test_an_average_goes_on_where_it_was_saved():
    models = [small_model() for _ in range(2)]
    whole = ModelEMA(models[0], decay=0.9, warmup=4)
    for step in range(6):
        move(models[0], 0.1)
        whole.update(models[0])
        if step == 2:
            saved = {name: value.clone() for name, value in whole.weights.items()}
            models[1].load_state_dict(models[0].state_dict())
            resumed = ModelEMA(small_model(), decay=0.9, warmup=4)
            resumed.load(saved, whole.updates)
    for _ in range(3):
        move(models[1], 0.1)
        resumed.update(models[1])
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())


def test_the_model_has_its_own_weights_again_after_an_error():
    model = small_model().to(memory_format=torch.channels_last)
    ema = ModelEMA(model, decay=0.5)
    move(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average = {name: value.clone() for name, value in ema.weights.items()}
    pointers = [p.data_ptr() for p in model.parameters()]

    def look():
        with ema.applied(model):
            assert all(torch.equal(v, average[k]) for k, v in model.state_dict().items())
            assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        look()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [p.data_ptr() for p in model.parameters()] == pointers


def test_what_a_forward_pass_does_to_buffers_does_not_reach_the_average():
    model = small_model()
    ema = ModelEMA(model, decay=0.5)
    average = {name: value.clone() for name, value in ema.weights.items()}
    model.train()
    with ema.applied(model):
        model(torch.rand(2, 3, 8, 8))
    assert all(torch.equal(value, average[name]) for name, value in ema.weights.items())
    assert model[1].num_batches_tracked.item() == 0


def test_tied_weights_come_back_to_themselves():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    ema = ModelEMA(model, decay=0.5)
    move(model)
    before = model[0].weight.detach().clone()
    with ema.applied(model):
        assert not torch.equal(model[0].weight, before)
    assert torch.equal(model[0].weight, before)
    assert model[1].weight is model[0].weight


def test_a_step_after_wearing_the_average_is_the_step_without():
    weights = []
    for wears in (False, True):
        model = small_model()
        ema = ModelEMA(model, decay=0.9)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            if wears:
                with ema.applied(model), torch.inference_mode():
                    model.eval()(torch.ones(1, 3, 4, 4))
                model.train()
            optimizer.zero_grad()
            model(torch.arange(96.0).view(2, 3, 4, 4)).square().sum().backward()
            optimizer.step()
            ema.update(model)
        weights.append([*model.state_dict().values(), *ema.weights.values()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def torchvisions_average(model, decay):
    """``ExponentialMovingAverage`` of torchvision's references/classification/utils.py."""
    return AveragedModel(
        model,
        avg_fn=lambda average, value, _: decay * average + (1 - decay) * value,
        use_buffers=True,
    )


@pytest.mark.parametrize("start", [4, 8, 12])
def test_period_and_start_are_those_of_torchvisions_train_py(start):
    """Its loop, with epochs of 4 steps, and 2 of them from one update to the next."""
    model = small_model()
    ema = ModelEMA(model, decay=0.9, period=2, start=start)
    theirs = torchvisions_average(model, 0.9)
    for iteration in range(24):
        move(model, 0.1 * (iteration % 5))
        ema.update(model, iteration)
        epoch, i = divmod(iteration, 4)
        if i % 2 == 0:
            theirs.update_parameters(model)
            if epoch < start // 4:
                theirs.n_averaged.fill_(0)
        for name, value in theirs.module.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(ema.weights[name], value, rtol=1e-6, atol=1e-6)
    assert ema.updates == (24 - start) // 2 - 1


@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("saved_at", [4, 5, 6, 7])
def test_an_average_with_a_period_goes_on_where_it_was_saved(saved_at, start):
    how = {"decay": 0.9, "warmup": 3, "period": 3, "start": start}
    models = [small_model() for _ in range(2)]
    averages = [ModelEMA(models[0], **how)]
    for iteration in range(14):
        if iteration == saved_at:
            models[1].load_state_dict(models[0].state_dict())
            averages.append(ModelEMA(small_model(), **how))
            saved = {name: value.clone() for name, value in averages[0].weights.items()}
            averages[1].load(saved, averages[0].updates)
        for model, average in zip(models, averages, strict=False):
            move(model, 0.1)
            average.update(model, iteration)
    whole, resumed = averages
    assert whole.updates == resumed.updates
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())
