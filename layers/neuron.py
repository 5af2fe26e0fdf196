"""type=neuron: one function, applied to every number on its own. Shapes stay.

    [conv1_neuron]
    type=neuron
    inputs=conv1
    neuron=tanh[1.7159,0.66666]

The key neuron= on any other layer is short for a layer like this one behind it. The names, their
parameters and the slopes at the corners are those of cuda-convnet (TABLE below): abs has slope -1
at 0, relu 0, brelu 0 at both ends, sqrt an infinite one at 0. One thing differs: softrelu is
ln(1 + e^x) everywhere, where cuda-convnet jumped by 0.018 to x above 4. A NaN stays a NaN.
"""

import math
import re
from typing import NamedTuple

from convnet.kernel import helper, kernel, prange
from convnet.layer import Layer, key, nearest


class Row(NamedTuple):
    """One neuron. Value and slope are CUDA; the slope is read off x, or off y where it can be."""

    parameters: str
    value: str
    slope: str


# fmt: off
TABLE = {
    "ident":    Row("",    "x",                           "1"),
    "relu":     Row("",    "x <= 0 ? 0 : x",              "y > 0 ? 1 : 0"),
    "logistic": Row("",    "1 / (1 + exp(-x))",           "y * (1 - y)"),
    "abs":      Row("",    "fabs(x)",                     "x > 0 ? 1 : -1"),
    "softrelu": Row("",    "x > 0 ? x + log1p(exp(-x)) : log1p(exp(x))", "-expm1(-y)"),
    "square":   Row("",    "x * x",                       "2 * x"),
    "sqrt":     Row("",    "sqrt(x)",                     "1 / (2 * y)"),
    "log":      Row("a",   "log(a + x)",                  "1 / (a + x)"),
    "tanh":     Row("a,b", "a * tanh(b * x)",             "b * (a - y * y / a)"),
    "brelu":    Row("a",   "x <= 0 ? 0 : x >= a ? a : x", "y > 0 && y < a ? 1 : 0"),
    "linear":   Row("a,b", "a * x + b",                   "a"),
    "drelu":    Row("a",   "x - a * tanh(x / a)",         "tanh(x / a) * tanh(x / a)"),
}
# fmt: on
# Rows of the TABLE by number, for the kernels.
IDENT, RELU, LOGISTIC, ABS, SOFTRELU, SQUARE = range(6)
SQRT, LOG, TANH, BRELU, LINEAR, DRELU = range(6, 12)


def form(name: str) -> str:
    """How a neuron is written, as in tanh[a,b]."""
    return f"{name}[{TABLE[name].parameters}]".removesuffix("[]")


class Chosen(NamedTuple):
    """What neuron= says: a name of the TABLE and its parameters, 0 where it has none."""

    name: str
    a: float
    b: float


def neuron_of(text: str) -> Chosen:
    """Reads relu, tanh[1.7159,0.66666] and the like; blanks do not count."""
    if re.fullmatch(r"\w+\s*\(.*\)", text):
        square = text.replace("(", "[").replace(")", "]")
        raise ValueError(f"parameters stand in square brackets: {square}")
    found = re.fullmatch(r"(\w+)\s*(?:\[(.*)\])?", text)
    if not found:
        raise ValueError("must be a name, or a name and its parameters: tanh[1.7159,0.66666]")
    name, inside = found.groups()
    if name not in TABLE:
        why = nearest(name, TABLE) or f"; there are {', '.join(map(form, TABLE))}"
        raise ValueError(f"no neuron is called {name!r}{why}")
    items = [] if inside is None else inside.split(",")
    count = len(TABLE[name].parameters.replace(",", ""))
    if len(items) != count:
        s = "" if count == 1 else "s"
        takes = f"{name} takes {count or 'no'} parameter{s}"
        raise ValueError(f"{takes}: {form(name)}; got {len(items)}")
    try:
        a, b = ([float(item) for item in items] + [0.0, 0.0])[:2]
    except ValueError:
        raise ValueError(f"the parameters of {form(name)} must be numbers") from None
    if not (math.isfinite(a) and math.isfinite(b)):
        raise ValueError(f"the parameters of {form(name)} must be finite numbers")
    if a == 0 and name in ("tanh", "drelu"):
        raise ValueError(f"a must not be 0 in {form(name)}")
    if a <= 0 and name == "brelu":
        raise ValueError("a must be above 0 in brelu[a]")
    return Chosen(name, a, b)


class Neuron(Layer):
    neuron = key(neuron_of, "the function: " + ", ".join(map(form, TABLE)))
    splits = False

    examples = """
        3x5x2  neuron=ident
        3x5x2  neuron=relu
        2x3x4  neuron=logistic
        2x3x4  neuron=abs
        1x4x3  neuron=softrelu
        1x4x3  neuron=square
        4x1x3+ neuron=sqrt
        4x1x3+ neuron=log[0.5]
        3x2x5  neuron=tanh[1.7159,0.66666]
        3x2x5  neuron=brelu[0.75]
        1x1x7  neuron=linear[-1.5,1e-1]
        5x1x2  neuron=drelu[.7]
    """

    def onnx(self, g, w, x):
        name, a, b = self.neuron
        u = x.name

        def line(u: str, a: float, b: float) -> str:  # a * u + b
            return g.op("Add", g.op("Mul", u, g.const(a)), g.const(b))

        simple = {"ident": "Identity", "relu": "Relu", "logistic": "Sigmoid", "abs": "Abs",
                  "softrelu": "Softplus", "sqrt": "Sqrt"}  # fmt: skip
        if name in simple:
            y = g.op(simple[name], u)
        elif name == "square":
            y = g.op("Mul", u, u)
        elif name == "log":
            y = g.op("Log", g.op("Add", u, g.const(a)))
        elif name == "tanh":
            y = g.op("Mul", g.op("Tanh", g.op("Mul", u, g.const(b))), g.const(a))
        elif name == "brelu":
            y = g.op("Clip", u, g.const(0.0), g.const(a))
        elif name == "linear":
            y = line(u, a, b)
        else:
            t = g.op("Tanh", g.op("Mul", u, g.const(1 / a)))
            y = g.op("Sub", u, g.op("Mul", t, g.const(a)))
        return x._replace(name=y)

    def shape(self, x):
        return x

    def fprop(self, run, w, x):
        name, a, b = self.neuron
        kind = list(TABLE).index(name)
        if kind == IDENT:
            return x, lambda dy, wants: ([dy if 0 in wants else None], {})
        y = run.empty(x.shape, x.dtype)
        if kind == RELU:
            relu[y.size](x.reshape(-1), y.reshape(-1))
        else:
            pointwise[y.size](x.reshape(-1), y.reshape(-1), kind, a, b)
        kept = y if "y" in TABLE[name].slope else x

        def bprop(dy, wants):
            if 0 not in wants:
                return [None], {}
            dx = run.empty(dy.shape, dy.dtype)
            if kind == RELU:
                relu_back[dx.size](kept.reshape(-1), dy.reshape(-1), dx.reshape(-1))
            else:
                flat = kept.reshape(-1), dy.reshape(-1), dx.reshape(-1)
                pointwise_back[dx.size](*flat, kind, a, b)
            return [dx], {}

        return y, bprop


@kernel(
    cuda=r"""
__global__ void relu(int n, const T* x, T* y) {
    FOR(i, n) y[i] = x[i] <= 0 ? 0 : x[i];
}"""
)
def relu(x, y):
    zero = x.dtype.type(0)
    for i in prange(x.size):
        y[i] = zero if x[i] <= zero else x[i]


@kernel(
    cuda=r"""
__global__ void relu_back(int n, const T* y, const T* dy, T* dx) {
    FOR(i, n) dx[i] = y[i] > 0 ? dy[i] : 0;
}"""
)
def relu_back(y, dy, dx):
    zero = y.dtype.type(0)
    for i in prange(y.size):
        dx[i] = dy[i] if y[i] > zero else zero


def switch(column: str) -> str:
    """CUDA that sets v to one column of the TABLE."""
    rows = enumerate(getattr(row, column) for row in TABLE.values())
    return " ".join(f"case {kind}: v = {text}; break;" for kind, text in rows if kind > RELU)


@kernel(
    cuda=rf"""
__global__ void pointwise(int n, const T* xs, T* ys, int kind, T a, T b) {{
    FOR(i, n) {{
        T x = xs[i], v = 0;
        switch (kind) {{ {switch("value")} }}
        ys[i] = v;
    }}
}}"""
)
def pointwise(xs, ys, kind, a, b):
    one = xs.dtype.type(1)
    for i in prange(xs.size):
        ys[i] = value(kind, xs[i], a, b, one)


@kernel(
    cuda=rf"""
__global__ void pointwise_back(int n, const T* kept, const T* dy, T* dx, int kind, T a, T b) {{
    FOR(i, n) {{
        T x = kept[i], y = x, v = 0;
        switch (kind) {{ {switch("slope")} }}
        dx[i] = dy[i] * v;
    }}
}}"""
)
def pointwise_back(kept, dy, dx, kind, a, b):
    one = kept.dtype.type(1)
    for i in prange(kept.size):
        dx[i] = dy[i] * slope(kind, kept[i], kept[i], a, b, one)


@helper()
def value(kind, x, a, b, one):
    """The value column of the TABLE; `one` has the dtype of x, as every constant must."""
    if kind == LOGISTIC:
        return one / (one + math.exp(-x))
    if kind == ABS:
        return abs(x)
    if kind == SOFTRELU:
        return x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x))
    if kind == SQUARE:
        return x * x
    if kind == SQRT:
        return math.sqrt(x)
    if kind == LOG:
        return math.log(a + x)
    if kind == TANH:
        return a * math.tanh(b * x)
    if kind == BRELU:
        return one - one if x <= 0 else a if x >= a else x
    if kind == LINEAR:
        return a * x + b
    return x - a * math.tanh(x / a)


@helper()
def slope(kind, x, y, a, b, one):
    """The slope column of the TABLE."""
    if kind == LOGISTIC:
        return y * (one - y)
    if kind == ABS:
        return one if x > 0 else -one
    if kind == SOFTRELU:
        return -math.expm1(-y)
    if kind == SQUARE:
        return x + x
    if kind == SQRT:
        return one / (y + y)
    if kind == LOG:
        return one / (a + x)
    if kind == TANH:
        return b * (a - y * y / a)
    if kind == BRELU:
        return one if y > 0 and y < a else one - one
    if kind == LINEAR:
        return a
    return math.tanh(x / a) * math.tanh(x / a)
