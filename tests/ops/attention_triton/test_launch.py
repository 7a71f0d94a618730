"""Kernels through Triton's interpreter against dense attention, one sample at a time, in float64."""

from dataclasses import dataclass

import pytest
import torch

pytest.importorskip("triton", reason="the kernels need Triton")

from maskpre.ops.attention_triton import launch, table_gradient

MARGIN = 3


@dataclass(kw_only=True)
class Case:
    """Lengths of the samples and what else differs; see `launch` for the tensors."""

    queries: list[int]
    keys: list[int] | None = None
    dim: int = 16
    heads: int = 1
    groups: int = 0
    codes: str = "none"
    ragged: bool = True
    factor: float = 1.0
    dtype: torch.dtype = torch.float64
    longest: int | None = None

    def __post_init__(self):
        generator = torch.Generator().manual_seed(0)
        self.keys = self.queries if self.keys is None else self.keys
        total_q, total_k = sum(self.queries), sum(self.keys)

        def randn(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=generator).to(self.dtype)

        self.q = randn(total_q, self.heads, self.dim) * self.factor
        self.k = randn(total_k, self.heads, self.dim) * self.factor
        self.v = randn(total_k, self.heads, self.dim)
        self.grad_out = randn(total_q, self.heads, self.dim)
        self.table = self.code_q = self.code_k = self.group_q = self.group_k = None
        self.offset = 0
        if self.groups:
            self.group_q = torch.randint(-1, self.groups, (total_q,), generator=generator, dtype=torch.int32)
            self.group_k = torch.randint(-1, self.groups, (total_k,), generator=generator, dtype=torch.int32)
        if self.codes != "none":
            self.make_codes(generator)

    def make_codes(self, generator):
        """Codes of a grid of the fewest places; the first token of a sample is its class token."""
        longest = max(*self.queries, *self.keys)
        width = max(2, int((longest - 2) ** 0.5) + 1)
        grid = torch.arange(width)
        places = (grid[:, None] * (2 * width - 1) + grid).flatten().int()
        self.offset = int(places.max())
        rows = (2 * width - 1) ** 2 + 3
        self.table = torch.randn(self.heads, rows, dtype=torch.float64, generator=generator)

        def codes(lengths):
            if self.codes == "shared":
                return torch.cat([torch.tensor([-1]), places])[: max(lengths)].int()
            drawn = [places[torch.randperm(len(places), generator=generator)] for _ in lengths]
            parts = [
                torch.cat([torch.tensor([-1]), code])[:n] for code, n in zip(drawn, lengths, strict=True)
            ]
            return torch.cat(parts).int()

        self.code_q, self.code_k = codes(self.queries), codes(self.keys)

    @property
    def arguments(self):
        """Everything the kernels take besides q, k and v."""

        def ends(lengths):
            return torch.tensor([0, *lengths]).cumsum(0).int() if self.ragged else None

        return {
            "cu_q": ends(self.queries),
            "cu_k": ends(self.keys),
            "num_samples": len(self.queries),
            "max_q": self.longest or max(self.queries),
            "max_k": self.longest or max(self.keys),
            "group_q": self.group_q,
            "group_k": self.group_k,
            "table": self.table,
            "code_q": self.code_q,
            "code_k": self.code_k,
            "code_offset": self.offset,
            "scale": self.dim**-0.5,
        }


def bias(case, table, query_codes, key_codes):
    """Biases (H, queries, keys) by the rules, pair by pair."""
    rows = torch.empty(len(query_codes), len(key_codes), dtype=torch.long)
    for i, a in enumerate(query_codes.tolist()):
        for j, b in enumerate(key_codes.tolist()):
            if a < 0 or b < 0:
                rows[i, j] = table.shape[1] - (1 if a < 0 and b < 0 else 3 if a < 0 else 2)
            else:
                rows[i, j] = a - b + case.offset
    return table[:, rows]


def dense(case, q, k, v, table):
    """Output and denominators of plain attention, sample after sample."""
    outs, denominators = [], []
    start_q = start_k = 0
    for n, m in zip(case.queries, case.keys, strict=True):
        at_q, at_k = slice(start_q, start_q + n), slice(start_k, start_k + m)
        start_q, start_k = start_q + n, start_k + m
        scores = torch.einsum("ihd,jhd->hij", q[at_q], k[at_k]) * case.dim**-0.5
        if table is not None:
            whole = case.codes == "shared"
            codes = [case.code_q[:n] if whole else case.code_q[at_q]]
            codes += [case.code_k[:m] if whole else case.code_k[at_k]]
            scores = scores + bias(case, table, *codes)
        seen = torch.ones(n, m, dtype=torch.bool)
        if case.groups:
            mine = case.group_q[at_q, None]
            seen = (mine == case.group_k[at_k]) & (mine >= 0)
        none = ~seen.any(1)
        weights = scores.masked_fill(~seen, -torch.inf).masked_fill(none[:, None], 0.0).softmax(-1)
        outs.append(torch.einsum("hij,jhd->ihd", weights * seen, v[at_k]))
        denominators.append(
            scores.masked_fill(~seen, -torch.inf).logsumexp(-1)
            if m
            else scores.new_full((q.shape[1], n), -torch.inf)
        )
    return torch.cat(outs), torch.cat(denominators, 1)


def guarded(x):
    """The same values with other strides and NaN on all sides, the last dimension still contiguous."""
    tokens, heads, dim = x.shape
    room = torch.full((tokens + 2 * MARGIN, heads + 1, dim + 8), torch.nan, dtype=x.dtype)
    view = room[MARGIN : MARGIN + tokens, :heads, 4 : 4 + dim]
    return view.copy_(x)


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """Fills with NaN whatever is allocated without a value."""
    for name in ("empty", "empty_like"):
        allocate = getattr(torch, name)

        def poisoned(*args, allocate=allocate, **kwargs):
            made = allocate(*args, **kwargs)
            return made.fill_(torch.nan) if made.is_floating_point() else made

        monkeypatch.setattr(torch, name, poisoned)


CASES = {
    **{f"{n} tokens": Case(queries=[n, n], ragged=False) for n in (1, 16, 32, 33, 64)},
    **{f"{n} tokens": Case(queries=[n, n], heads=2, ragged=False) for n in (17, 65)},
    "129 tokens": Case(queries=[129], ragged=False),
    **{f"head of {d}": Case(queries=[18, 5], dim=d) for d in (12, 24, 48, 64, 80, 88, 96, 112, 128)},
    **{f"head of {d}, loop": Case(queries=[66], dim=d) for d in (12, 80, 88)},
    "image": Case(queries=[197], dim=32, codes="shared"),
    "empty samples": Case(queries=[0, 5, 0, 9, 0]),
    "empty samples, loop": Case(queries=[0, 70, 0, 9, 0]),
    "few of many": Case(queries=[3, 20, 1], keys=[40, 0, 7]),
    "few of many, loop": Case(queries=[3, 20, 1], keys=[90, 0, 7]),
    "many of few, loop": Case(queries=[90, 0, 7], keys=[3, 20, 1]),
    "no keys": Case(queries=[3, 4], keys=[0, 0]),
    "no tokens": Case(queries=[0, 0]),
    "bound above all": Case(queries=[3, 11], longest=40),
    "bound above all, loop": Case(queries=[3, 11], longest=90),
    "groups": Case(queries=[30, 33, 1], heads=3, groups=3),
    "groups, loop": Case(queries=[70, 33, 1], groups=3),
    "large": Case(queries=[20], factor=100.0),
    "large, loop": Case(queries=[70], factor=100.0),
    "shared codes": Case(queries=[17, 17, 17], heads=2, codes="shared", ragged=False),
    "shared codes, ragged": Case(queries=[12, 0, 20], codes="shared", groups=2),
    "shared codes, loop": Case(queries=[66, 3], heads=2, codes="shared", groups=2),
    "own codes": Case(queries=[17, 17, 17], heads=2, codes="own", ragged=False),
    "own codes, ragged": Case(queries=[12, 0, 20], codes="own", groups=2),
    "own codes, loop": Case(queries=[66, 3], codes="own", groups=2),
    "codes of few": Case(queries=[3, 20, 1], keys=[40, 0, 7], codes="own"),
    "codes of few, loop": Case(queries=[3, 20, 1], keys=[90, 0, 7], codes="shared"),
}  # fmt: skip


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    return request.param


def close(case, found, expected):
    tolerance = 1e-12 * max(1.0, case.factor)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def gradients(case, q, k, v, grad_out, **more):
    out, lse = launch.forward(q, k, v, **case.arguments)
    return launch.backward(grad_out, q, k, v, out, lse, **case.arguments, **more)


def dense_gradients(case, grad_out):
    tensors = [x for x in (case.q, case.k, case.v, case.table) if x is not None]
    leaves = [x.double().requires_grad_() for x in tensors]
    table = leaves[3] if case.table is not None else None
    return torch.autograd.grad(dense(case, *leaves[:3], table)[0], leaves, grad_out.double())


def test_output_and_gradients_are_those_of_dense_attention(case):
    q, k, v, grad_out = map(guarded, (case.q, case.k, case.v, case.grad_out))
    out, lse = launch.forward(q, k, v, **case.arguments)
    expected, denominators = dense(case, case.q, case.k, case.v, case.table)
    assert out.is_contiguous()
    close(case, out, expected)
    close(case, lse, denominators)
    room = torch.full((2 * MARGIN + max(len(q), len(k)), 3, case.heads, case.dim), torch.nan).to(case.dtype)
    parts = room[MARGIN:, 0][: len(q)], room[MARGIN:, 1][: len(k)], room[MARGIN:, 2][: len(k)]
    found = launch.backward(grad_out, q, k, v, out, lse, **case.arguments, grads=parts)
    for ours, theirs in zip(found, dense_gradients(case, case.grad_out), strict=False):
        close(case, ours, theirs)
    assert (found[3] is None) == (case.table is None)
    assert room.isnan().sum() == room.numel() - sum(part.numel() for part in parts)


@pytest.mark.parametrize("tokens", [20, 66])
def test_any_strides_will_do(tokens):
    case = Case(queries=[tokens])
    q, k, v = (x.transpose(0, 1).contiguous().transpose(0, 1) for x in (case.q, case.k, case.v))
    k = k.mT.contiguous().mT
    ones = torch.ones((), dtype=torch.float64).expand(case.q.shape)
    for ours, theirs in zip(gradients(case, q, k, v, ones), dense_gradients(case, ones), strict=False):
        close(case, ours, theirs)


@pytest.mark.parametrize("tokens", [20, 66])
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)]
)
def test_rounding_is_that_of_the_type(tokens, dtype, bound):
    case = Case(queries=[tokens, 9], dtype=dtype, codes="shared")
    case.table = case.table.float()
    out, lse = launch.forward(case.q, case.k, case.v, **case.arguments)
    assert (out.dtype, lse.dtype) == (dtype, torch.float32)
    found = launch.backward(case.grad_out, case.q, case.k, case.v, out, lse, **case.arguments)
    assert [x.dtype for x in found] == [dtype, dtype, dtype, torch.float32]
    expected = dense(case, case.q.double(), case.k.double(), case.v.double(), case.table.double())[0]
    pairs = zip([out, *found], [expected, *dense_gradients(case, case.grad_out)], strict=True)
    for ours, theirs in pairs:
        assert (ours.double() - theirs).norm() <= bound * theirs.norm()


@pytest.mark.parametrize("tokens", [20, 66])
def test_results_are_the_same_each_time(tokens):
    case = Case(queries=[tokens, 9], codes="own", dtype=torch.float32)
    case.table = case.table.float()
    first, second = (gradients(case, case.q, case.k, case.v, case.grad_out) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("tokens", [17, 66])
def test_first_and_last_row_of_the_table_get_gradients(tokens):
    case = Case(queries=[tokens], codes="shared")
    d_table = gradients(case, case.q, case.k, case.v, case.grad_out)[3]
    expected = dense_gradients(case, case.grad_out)[3]
    assert expected[:, [0, -3, -2, -1]].abs().min() > (1e-6 if tokens == 17 else -1)
    close(case, d_table, expected)


@pytest.mark.parametrize("tokens", [20, 66])
def test_places_of_shared_codes_may_repeat(tokens):
    case = Case(queries=[tokens, 5], codes="shared")
    case.code_q = case.code_q.clone()
    case.code_q[:6] = torch.tensor([-1, -1, 0, 1, 1, 1])
    case.code_k = case.code_q
    d_table = gradients(case, case.q, case.k, case.v, case.grad_out)[3]
    close(case, d_table, dense_gradients(case, case.grad_out)[3])


def test_samples_are_summed_in_parts_of_bounded_size(monkeypatch):
    case = Case(queries=[5] * 7, codes="own", ragged=False)
    expected = dense_gradients(case, case.grad_out)[3]
    for programs, scratch in ((1, 2**20), (3, 2**20), (1024, 1)):
        monkeypatch.setattr(table_gradient, "PROGRAMS", programs)
        monkeypatch.setattr(table_gradient, "SCRATCH_BYTES", scratch)
        close(case, gradients(case, case.q, case.k, case.v, case.grad_out)[3], expected)
