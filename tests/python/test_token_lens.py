"""The token lens: its last point has the model's predictions, and other points agree with TransformerLens."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import residscope
from residscope import ResidscopeError, targets
from residscope.attribution import lens_logits
from residscope.serving.service import Service
from tests.support import tiny
from tests.support.brute import logit_scale

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
FAMILIES = ["gpt2", "gptj", "gpt_neox", "llama", "qwen2", "cohere", "granite", "gemma2", "gemma2-cap-5", "olmo2",
            "native", "native-no-norm", "gemma4_text"]  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def small(request):
    model = tiny.boot(request.param)
    return request.param, model, *tiny.run(model)


def check(result, probabilities: torch.Tensor, answers: torch.Tensor | None = None, near: float = 2e-5) -> None:
    """Compare a lens of one point with the probabilities of the whole vocabulary, `[position, d_vocab]`."""
    top = probabilities.topk(result.probabilities.shape[-1])
    torch.testing.assert_close(result.probabilities[0].double(), top.values.double(), atol=near, rtol=1e-3)
    own = probabilities.gather(-1, result.ids[0])
    torch.testing.assert_close(result.probabilities[0].double(), own.double(), atol=near, rtol=1e-3)
    assert result.tokens[0] == [[f"w{id}" if id > 2 else ["<pad>", "<s>", "</s>"][id] for id in row]
                                for row in result.ids[0].tolist()]  # fmt: skip
    if answers is not None:
        said = probabilities.gather(-1, answers.expand(len(probabilities), -1)).amax(-1)
        torch.testing.assert_close(result.answer_probability[0].double(), said.double(), atol=near, rtol=1e-3)
        assert result.rank[0].tolist() == (1 + (probabilities > said[:, None]).sum(-1)).tolist()


@pytest.mark.parametrize("norm", ["recomputed", "frozen"])
def test_the_last_point_is_the_models_own_softmax(small, norm):
    _, _, _, logits, cache = small
    for prompt in range(3):
        result = residscope.token_lens(cache, ANSWERS, prompt=prompt, k=7, points="final_post", norm=norm)
        check(result, logits[prompt].softmax(-1), ANSWERS[prompt, :1])
        assert result.notes == []
    check(residscope.token_lens(cache, ANSWERS, points=["final_post"], norm=norm), logits.softmax(-1).mean(0))


def test_inner_points_are_the_models_own_norm_and_unembedding_in_float64(small):
    family, model, _, logits, cache = small
    scale = logit_scale(logits, cache)
    norm, unembed = (copy.deepcopy(part.original_component).double() for part in (model.ln_final, model.unembed))
    cap = getattr(model.cfg, "output_logits_soft_cap", None) or 0
    for point in ("0_pre", "1_mid", "2_pre"):
        name = f"blocks.{point[0]}.hook_resid_{point[2:]}"
        if name not in cache:
            assert family in ("gptj", "gpt_neox", "cohere")  # parallel blocks have no `mid` point
            continue
        with torch.no_grad():
            said = unembed(norm(cache[name][1].double())) * scale
            said = cap * (said / cap).tanh() if cap > 0 else said
        result = residscope.token_lens(cache, ANSWERS, prompt=1, points=point)
        check(result, said.softmax(-1), ANSWERS[1, :1])


@pytest.mark.parametrize("norm", ["recomputed", "frozen"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen2"])
def test_on_a_folded_model_the_lens_equals_transformer_lens_accumulated_resid(family, norm):
    model = tiny.boot(family, compatible=True)
    _, _, cache = tiny.run(model)
    stack, names = cache.accumulated_resid(layer=-1, incl_mid=family != "gpt_neox", return_labels=True)
    stack = cache.apply_ln_to_stack(stack, layer=-1, recompute_ln=norm == "recomputed")
    result = residscope.token_lens(cache, ANSWERS, norm=norm)
    assert result.points == names
    probabilities = (stack @ model.W_U + model.b_U).softmax(-1).mean(1).detach()
    torch.testing.assert_close(result.probabilities, probabilities.topk(5).values, atol=2e-5, rtol=1e-3)
    torch.testing.assert_close(result.probabilities, probabilities.gather(-1, result.ids), atol=2e-5, rtol=1e-3)


def test_the_lens_equals_transformer_lens_own_logit_lens(small):
    _, _, _, _, cache = small
    cache.model.eval()  # TransformerLens' function requires this
    result = residscope.token_lens(cache, ANSWERS[0, 0].item(), prompt=0)
    mid = any(point.endswith("mid") for point in result.points)
    options = {"positions": None, "incl_mid": mid, "return_type": "probs"}
    theirs = cache.logit_lens(targets=[5], **options)
    assert theirs.labels == result.points
    torch.testing.assert_close(result.answer_probability, theirs.values[:, 0, :, 0], atol=2e-5, rtol=1e-3)
    assert torch.equal(result.rank, 1 + theirs.rank_trajectory(5)[:, 0])
    top = cache.logit_lens(top_k=5, **options)
    torch.testing.assert_close(result.probabilities, top.values[:, 0], atol=2e-5, rtol=1e-3)


def test_a_mean_averages_probabilities_and_takes_the_median_rank(small, monkeypatch):
    _, _, _, _, cache = small
    every = [residscope.token_lens(cache, ANSWERS, prompt=prompt, k=64) for prompt in range(3)]
    for figures in (lens_logits._MOST_LOGITS, 1, 64 * 4, 64 * 20):  # all at once, one by one, a few at a time
        monkeypatch.setattr(lens_logits, "_MOST_LOGITS", figures)
        mean = residscope.token_lens(cache, ANSWERS, k=64)
        total = torch.zeros(*mean.ids.shape[:2], 64)
        for one in every:
            total.scatter_add_(-1, one.ids, one.probabilities)
        torch.testing.assert_close(total.gather(-1, mean.ids) / 3, mean.probabilities, atol=1e-5, rtol=1e-4)
        said = torch.stack([one.answer_probability for one in every])
        torch.testing.assert_close(mean.answer_probability, said.mean(0), atol=1e-5, rtol=1e-4)
        assert torch.equal(mean.rank, torch.stack([one.rank for one in every]).median(0).values)


@pytest.mark.parametrize("most", [lens_logits._MOST_LOGITS, 1])  # all prompts at once, one by one
def test_where_one_prompt_has_no_next_token_it_is_not_in_the_mean(most, monkeypatch):
    monkeypatch.setattr(lens_logits, "_MOST_LOGITS", most)
    tokens, logits, cache = tiny.run(tiny.boot("llama"))
    mask = torch.ones_like(tokens)
    mask[1, 5:] = 0
    given = {"answers": targets.next_token(), "points": "final_post", "attention_mask": mask}
    mean = residscope.token_lens(cache, **given)
    own = logits[:, :-1].gather(-1, tokens[:, 1:, None])
    ranks = 1 + (logits[:, :-1] > own).sum(-1)
    two = ranks[[0, 2]].median(0).values
    assert mean.rank[0].tolist() == [*ranks.median(0).values[:4].tolist(), *two[4:].tolist(), 0]
    assert mean.answer_probability[0].isnan().tolist() == [False] * 6 + [True]
    shares = logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    torch.testing.assert_close(mean.answer_probability[0, 4:6], shares[[0, 2], 4:6].mean(0), atol=1e-5, rtol=1e-4)
    # Position 4 is the last of prompt 1: no token follows, and so there is no difference of ranks.
    pair = residscope.compare_token_lens(cache, **given, prompt=0, with_prompt=1, align=[(2, 2), (5, 4)])
    assert pair.answer_probability[0].isnan().tolist() == [False, True]
    assert pair.rank[0].tolist() == [int(ranks[1, 2] - ranks[0, 2]), 0]


def test_texts_say_where_no_token_follows():
    _, _, cache = tiny.run(tiny.boot("llama"))
    for lens in (
        residscope.token_lens(cache, targets.next_token(), prompt=0),
        residscope.token_lens(cache, targets.next_token()),
        residscope.compare_token_lens(cache, answers=targets.next_token(), prompt=0, with_prompt=1),
    ):
        *others, last = lens.to_plotly().data[0].hovertext[-1]
        assert all("no token follows" not in text for text in others)
        for text in (repr(lens), last):
            assert "no token follows" in text
            assert "nan" not in text
            assert "rank 0" not in text


def test_the_likeliest_of_several_answers_counts_and_a_direction_has_no_answer():
    _, logits, cache = tiny.run(tiny.boot("llama"))
    result = residscope.token_lens(cache, ({5, 40, 33}, 7), prompt=0, points="final_post")
    check(result, logits[0].softmax(-1), torch.tensor([[5, 40, 33]]))
    assert "rank" in repr(result)
    direction = residscope.token_lens(cache, torch.randn(24), prompt=0, points="final_post")
    assert (direction.answer_probability, direction.rank) == (None, None)
    own = residscope.token_lens(cache, points="final_post", positions=-1, prompt=2)
    assert own.rank.tolist() == [[1]]
    assert own.positions == [6]
    assert own.to_frame().loc["final_post", 6] == own.tokens[0][0][0]


def test_with_answer_sets_of_unequal_size_only_a_prompts_own_answers_count():
    _, logits, cache = tiny.run(tiny.boot("llama"))
    order = logits[:, -1].argsort()  # for each prompt, the least likely token comes first
    answers = [{int(order[0, 0]), int(order[0, 1])}, {int(order[1, 0])}, {int(order[2, 0])}]
    assert all(0 not in ids for ids in answers)  # token 0 would change the result if it filled up the short sets
    result = residscope.token_lens(cache, [(ids, 3) for ids in answers], points="final_post", positions=-1)
    likeliest = logits[:, -1].softmax(-1)[range(3), [order[0, 1], order[1, 0], order[2, 0]]]
    assert float(result.answer_probability) == pytest.approx(float(likeliest.mean()), rel=1e-3, abs=0)
    assert int(result.rank) == 64  # the median of the prompts' ranks 63, 64 and 64


def test_weights_in_half_precision_are_converted_a_few_columns_at_a_time(monkeypatch):
    model = copy.deepcopy(tiny.boot("gpt2")).bfloat16()
    _, logits, cache = tiny.run(model)
    whole = residscope.token_lens(cache, 5, points="final_post")
    torch.testing.assert_close(
        whole.probabilities[0], logits.float().softmax(-1).mean(0).topk(5).values, atol=0.02, rtol=0.05
    )
    monkeypatch.setattr(lens_logits, "_MOST_LOGITS", 24 * 10)
    torch.testing.assert_close(residscope.token_lens(cache, 5, points="final_post").probabilities, whole.probabilities)


def test_a_view_gets_the_requested_window_and_nothing_else_is_computed(ioi, monkeypatch):
    made = []
    real = lens_logits.Reader._unembedded
    monkeypatch.setattr(
        lens_logits.Reader, "_unembedded", lambda self, rows: made.append(rows.shape) or real(self, rows)
    )
    service = Service(ioi.cache)
    target = {
        "contrasts": [{"answer": [{"id": a, "text": ""}], "distractor": []} for a, _ in ioi.answer_tokens.tolist()]
    }
    ask = {"kind": "token-lens", "points": ["3_mid", "29_pre"], "start": 12, "stop": 99, "k": 3, "target": target}
    answer, buffers = service.answer({"id": "1", "ask": ask | {"prompt": 4}})
    reply = answer["reply"]
    assert (reply["points"], reply["start"], buffers) == (["3_mid", "29_pre"], 12, [])
    assert sum(shape[:-1].numel() for shape in made) == 2 * 3
    expected = residscope.token_lens(
        ioi.cache, ioi.answers, prompt=4, points=["3_mid", "29_pre"], positions=[12, 13, 14]
    )
    for i, row in enumerate(reply["cells"]):
        for j, cell in enumerate(row):
            assert cell["tokens"] == expected.tokens[i][j][:3]
            assert cell["probabilities"] == pytest.approx(expected.probabilities[i, j, :3].tolist())
            assert cell["answer"] == pytest.approx(float(expected.answer_probability[i, j]))
            assert cell["rank"] == int(expected.rank[i, j])
    failure = service.answer({"id": "1", "ask": ask | {"start": 15}})[0]["failure"]
    assert "no positions 15" in failure["message"]


def test_the_demo_models_answer_rises_to_the_top(ioi):
    result = residscope.token_lens(ioi.cache, ioi.answers, points=["0_pre", "final_post"], positions=[14])
    probabilities = ioi.logits[:, -1].softmax(-1).gather(1, ioi.answer_tokens[:, :1])
    assert float(result.answer_probability[1, 0]) == pytest.approx(float(probabilities.mean()), rel=1e-3)
    assert result.rank[0, 0] > 1000 > result.rank[1, 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"points": "3_post"}, 'no point "3_post"'),
        ({"points": "3_pre"}, "There is no layer 3"),
        ({"points": []}, "one point and one position"),
        ({"positions": [7]}, "Position 7 is outside"),
        ({"prompt": 3}, "There is no prompt 3"),
        ({"norm": "melted"}, '"frozen" or "recomputed"'),
        ({"positions": "last"}, "positions are numbers"),
        ({"positions": slice(0, 2)}, "is not a position: give an index"),
        ({"points": [3]}, 'no point "3"'),
        ({"prompt": "0"}, "`prompt='0'` is not a prompt"),
    ],
    ids=str,
)
def test_impossible_arguments_are_refused_in_a_sentence(options, said):
    with pytest.raises(ResidscopeError, match=said):
        residscope.token_lens(tiny.run(tiny.boot("llama"))[2], 5, **options)


def test_missing_streams_nan_and_unusual_models_are_refused_in_a_sentence():
    from transformer_lens import ActivationCache

    model = tiny.boot("llama")
    held = dict(tiny.run(model)[2].items())
    without = ActivationCache({n: t for n, t in held.items() if not n.endswith("resid_mid")}, model)
    assert residscope.token_lens(without, 5).points == ["0_pre", "1_pre", "2_pre", "final_post"]
    with pytest.raises(ResidscopeError, match=r"`blocks.1.hook_resid_mid` is not in this cache"):
        residscope.token_lens(without, 5, points="1_mid")
    odd = held["blocks.1.hook_resid_pre"].clone()
    odd[0, 3] = torch.nan
    with pytest.raises(ResidscopeError, match=r"`blocks.1.hook_resid_pre` \(prompt 0, position 3\)"):
        residscope.token_lens(ActivationCache(held | {"blocks.1.hook_resid_pre": odd}, model), 5)
    [note] = residscope.token_lens(tiny.run(tiny.boot("bert"))[2], 5).notes
    assert "own probabilities differ" in note
    with pytest.raises(ResidscopeError, match="projects the stream in between"):
        residscope.token_lens(tiny.run(tiny.boot("opt-projected"))[2], 5)


@pytest.mark.parametrize("at", [np.int64(3), torch.tensor(3), np.array([3]), [torch.tensor(3)], range(3, 4)], ids=repr)
def test_a_position_may_be_any_whole_number(at):
    cache = tiny.run(tiny.boot("llama"))[2]
    assert torch.equal(residscope.token_lens(cache, 5, positions=at).ids, residscope.token_lens(cache, 5).ids[:, 3:4])


def test_the_repr_of_a_lens_names_the_top_token_at_its_last_point_and_position():
    _, logits, cache = tiny.run(tiny.boot("llama"))
    said = repr(residscope.token_lens(cache, prompt=0, positions=[1, 5]))
    top = logits[0, 5].softmax(-1).max(0)
    assert logits[0, 1].argmax() != top.indices
    assert f"at final_post, position 5: 'w{top.indices}' {top.values:.3f}" in said
