"""The cfg reader: its grammar rule by rule, and what it says of wrong files, word for word.

tests/cfg/bad holds a wrong cfg, sometimes its params file, and in <name>.txt the expected lines.
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from convnet import graph
from convnet.cfg import CfgError, load_text, parse, read
from convnet.schedule import schedule
from convnet.source import Source

ROOT = Path(__file__).parent.parent
BAD = sorted(p.stem for p in (ROOT / "tests/cfg/bad").glob("*.txt"))
NET = """[data]
type=data
dataIdx=0
imgSize=12
channels=3
[labels]
type=data
dataIdx=1
[conv1]
type=conv
inputs=data
filters=4
filterSize=3
neuron=relu
[fc2]
type=fc
inputs=conv1
outputs=classes
[probs]
type=softmax
inputs=fc2
[logprob]
type=cost.logreg
inputs=labels,probs
"""


def one(text: str, key: str = "k"):
    """The value of a key in a section [s]."""
    return str(parse(text)["s"][key])


def build(text: str, params: str = "", *overrides: str, classes: int = 10, feeds=None):
    return Source("n.cfg", text, "n-params.cfg", params, overrides).graph(feeds, classes)


def mistakes(text: str, params: str = "", *overrides: str) -> list[str]:
    with pytest.raises(CfgError) as e:
        build(text, params, *overrides)
    return str(e.value).split("\n")


# -------------------------------------------------------------------- wrong files


@pytest.mark.parametrize("name", BAD)
def test_bad(name, monkeypatch):
    monkeypatch.setattr(graph, "memory_of_computer", lambda: 16 << 30)
    monkeypatch.chdir(ROOT / "tests/cfg/bad")
    start = time.thread_time()  # nobody else's work counts
    with pytest.raises(CfgError) as e:
        Source.read(f"{name}.cfg").graph(None, 10)
    assert f"{e.value}\n" == Path(f"{name}.txt").read_text(encoding="utf-8")
    assert time.thread_time() - start < 1


def test_every_bad_file_is_tested():
    there = {p.stem for p in (ROOT / "tests/cfg/bad").glob("*.cfg")}
    assert len(BAD) >= 60
    assert there == set(BAD) | {f"{n}-params" for n in BAD if f"{n}-params" in there}


def test_files_that_cannot_be_read(tmp_path):
    def why(path):
        with pytest.raises(CfgError) as e:
            read(path)
        return str(e.value)

    (tmp_path / "net.cfg").write_text(NET)
    wrong = tmp_path / "ned.cfg"
    assert why(wrong) == f"{wrong}: no such file or directory; did you mean 'net.cfg'?"
    assert why(tmp_path) == f"{tmp_path}: is a directory"
    assert why("a\0b.cfg") == "a\\x00b.cfg: embedded null byte"
    assert why("x" * 4096) == "x" * 4096 + ": file name too long"
    large = tmp_path / "large.cfg"
    large.write_bytes(b"#" * (5 << 20))
    assert why(large) == f"{large}: more than 4 MiB: this is not a cfg"
    odd = tmp_path / "a b;$(c)\n\U0001f600.cfg"
    odd.write_text("[data")
    assert (
        why(odd) == f"{tmp_path}/a b;$(c)\\n\U0001f600.cfg:1: no [section] above this line: '[data'"
    )


def test_params_file_named_but_missing(tmp_path):
    (tmp_path / "net.cfg").write_text(NET)
    with pytest.raises(CfgError) as e:
        Source.read(tmp_path / "net.cfg", tmp_path / "rates.cfg")
    assert str(e.value) == f"{tmp_path / 'rates.cfg'}: no such file or directory"


def test_check_prints_mistakes_and_exits_with_2(tmp_path):
    (tmp_path / "n.cfg").write_text(NET.replace("filters=4", "filters=x"))
    done = subprocess.run(
        [sys.executable, ROOT / "tools/check.py", "--layer-def=n.cfg", "--set=fc2.outputs=0"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "--set fc2.outputs=0: [fc2] outputs=0: must be 1 or more\n"
        "n.cfg:12: [conv1] filters=x: must be a whole number\n"
    )


def test_memory_is_refused_before_it_is_asked_for(monkeypatch):
    text = NET.replace("outputs=classes", "outputs=30000").replace("inputs=fc2", "inputs=fc3")
    text = text.replace("[probs]", "[fc3]\ntype=fc\ninputs=fc2\noutputs=classes\n[probs]")
    for have, fits in ((45 << 20, False), (48 << 20, True), (None, True)):
        monkeypatch.setattr(graph, "memory_of_computer", lambda have=have: have)
        if fits:
            assert build(text).shapes["fc2"] == (1, 1, 30000)
        else:
            assert mistakes(text) == [
                "n.cfg:15: [fc2] too large: its 12,030,000 weights and output of 1x1x30000 take "
                "46.0 MiB, all layers 47.2 MiB; this computer has 45.0 MiB of memory"
            ]
    monkeypatch.undo()
    assert graph.memory_of_computer() is None or graph.memory_of_computer() > 1 << 28


# -------------------------------------------------------------------- grammar


@pytest.mark.parametrize(
    "text,value",
    [
        ("[s]\nk=v", "v"),
        ("[s]\nk: v", "v"),
        ("[s]\n k  =  v  \n", "v"),
        ("[s]\nk=a=b:c", "a=b:c"),
        ("[s]\nk:a=b", "a=b"),
        ("[s] what follows\nk=v", "v"),
        ("[s] # [t]\nk=v", "v"),
        ("[s] ; [t]\nk=v", "v"),
        ("[s]\nK=Value", "Value"),
        ("[s]\nk=", ""),
        ('[s]\nk=""', ""),
        ("[s]\nk='\"'", "'\"'"),
        ("# a\n; b\nrem c\nREM\n[s]\nk=v", "v"),
        ("[s]\nk=v\nrem", "v"),
        ("[s]\nremk=1\nk=v", "v"),
        ("[s]\nk=1 ;x", "1"),
        ("[s]\nk=1\t; x ; y", "1"),
        ("[s]\nk=1;x", "1;x"),
        ("[s]\nk=; x", "; x"),
        ("[s]\nk= ; x", ""),
        ("[s]\nk=dexp[base=1;tgtFactor=2] ; note", "dexp[base=1;tgtFactor=2]"),
        ("[s]\nk=dexp[base=1 ;tgtFactor=2]", "dexp[base=1 ;tgtFactor=2]"),
        ("[s]\nk=48 #96", "48 #96"),
        ("[s]\nk=a,\n\tb", "a,\nb"),
        ("[s]\nk=a,\n\n  b ; note\n# c\n  # d\n  c", "a,\nb\nc"),
        ("[s]\n  j=1\n  k=v", "v"),
        ("[DEFAULT]\nk=v\n[s]", "v"),
        ("[s]\n[DEFAULT]\nk=v", "v"),
        ("[DEFAULT]\nk=v\n[s]\nK=w", "w"),
        ("[s]\nk=%(x)s 100%", "%(x)s 100%"),
        ("\ufeff[s]\r\nk=v\r\n", "v"),
        ("[s]\rk=v\r", "v"),
        ("[s]\nk=v\n[t]\n[s]\nj=w", "v"),
        ("[s]\nk=v\nk=v", "v"),
    ],
)
def test_grammar(text, value):
    assert one(text) == value


def test_sections_keep_their_order_and_names():
    assert list(parse("[b]\n[ a ]\n[DEFAULT]\n[default]\n[b]\n[A]")) == ["b", " a ", "default", "A"]
    assert parse("[DEFAULT]\nk=1\n[s]\nj=2")["s"].inherited == {"k"}


def test_values_know_where_they_stood():
    sections = parse("; one\r\n[s]\r\n\r\nfilterSize=3,\r\n  5\r\nStride=2\r\n", "x.cfg")
    size, stride = sections["s"]["filtersize"], sections["s"]["stride"]
    assert (str(size.where), size.key, size.section) == ("x.cfg:4", "filterSize", "s")
    assert (str(stride.where), stride.key) == ("x.cfg:6", "Stride")
    assert str(sections["s"].where) == "x.cfg:2"


def test_old_alphabets(tmp_path):
    path = tmp_path / "old.cfg"
    path.write_bytes(b"# M\xfcller\n" + NET.encode())
    assert "# Müller" in load_text(path)
    path.write_bytes(b"\xef\xbb\xbf" + "# Müller, Конв\n".encode() + NET.encode())
    assert load_text(path).startswith("# Müller, Конв")
    assert "conv1" in read(path)


def test_keys_in_any_case_names_and_words_are_not():
    built = build(NET.replace("filterSize", "FILTERSIZE").replace("inputs", "Inputs"))
    assert built.shapes["conv1"] == (10, 10, 4)
    assert mistakes(NET.replace("neuron=relu", "neuron=ReLU")) == [
        "n.cfg:14: [conv1] neuron=ReLU: no neuron is called 'ReLU'; did you mean 'relu'?"
    ]
    assert mistakes(NET.replace("inputs=data", "inputs=Data")) == [
        "n.cfg:11: [conv1] inputs=Data: no layer 'Data' above; did you mean 'data'?"
    ]


@pytest.mark.parametrize("text", [".75", "1.", "1e-3", "+2", " 3 "])
def test_floats(text):
    assert build(NET.replace("neuron=", f"initW={text}\nneuron=")).by_name["conv1"].initW == [
        float(text)
    ]


@pytest.mark.parametrize(
    "text,value", [("YES", True), ("on", True), ("0", False), ("False", False)]
)
def test_flags(text, value):
    layer = build(NET.replace("neuron=", f"sharedBiases={text}\nneuron=")).by_name["conv1"]
    assert layer.sharedBiases is value


def test_one_item_serves_all_inputs():
    text = NET.replace("inputs=data\nfilters=4", "inputs=data,data\npadding=0\nfilters=4,4")
    layer = build(text).by_name["conv1"]
    assert (layer.padding, layer.filters, layer.filterSize) == ([0, 0], [4, 4], [3, 3])
    assert [layer.epsW[i](0) for i in (0, 1)] == [0.01, 0.01]


# -------------------------------------------------------------------- the poster, old files

POSTER = """[data]
type=data
dataIdx=0
imgSize=13
channels=3
[labels]
type=data
dataIdx=1
[conv5]
type=conv
inputs=data
filters=4
filterSize=3
padding=1
[pool3x3]
type=pool
pool=max
inputs=conv5
sizeX=5
stride=4

[pool2x2]
type=pool
pool=max
inputs=conv5
sizeX=7
stride=6

[pool1x1]
type=pool
pool=max
inputs=conv5
sizeX=13
stride=13

[fc6]
type=fc
outputs=4096
inputs=pool3x3,pool2x2,pool1x1

[fc8]
type=fc
inputs=fc6
outputs=classes
[probs]
type=softmax
inputs=fc8
[logprob]
type=cost.logreg
inputs=labels,probs
"""


def test_the_poster_as_printed():
    built = build(POSTER)
    shapes = [built.shapes[n][:2] for n in ("pool3x3", "pool2x2", "pool1x1")]
    assert shapes == [(3, 3), (2, 2), (1, 1)]
    fc6 = built.by_name["fc6"]
    assert [w.shape for w in built.asked(fc6).values()] == [
        (36, 4096),
        (16, 4096),
        (4, 4096),
        (4096,),
    ]
    assert [built.by_name[n].level for n in fc6.reads] == [3, 2, 1]


V1_DEF = """; written the way files of cuda-convnet (2012) are
[data]
type=data
dataIdx=0
[labels]
type=data
dataIdx=1

[conv1]
type=conv
inputs=data
channels=3
filters=16
padding=2
stride=1
filterSize=5
neuron=relu
initW=0.0001
partialSum=4
sharedBiases=1

[pool1]
type=pool
pool=max
inputs=conv1
start=0
sizeX=3
stride=2
outputsX=0
channels=16

[rnorm1]
type=cmrnorm
inputs=pool1
channels=16
size=5

[conv2]
type=conv
inputs=rnorm1
filters=16
padding=2
filterSize=5
channels=16
initW=.01
initB=1
partialSum=8
neuron=tanh[1.7159,0.66666]

[mix]
type=eltsum
inputs=conv2,rnorm1
coeffs=1,0.5

[fc10]
type=fc
outputs=10
inputs=mix
initW=0.01
[probs]
type=softmax
inputs=fc10
[logprob]
type=cost.logreg
inputs=labels,probs
"""
V1_PARAMS = """[conv1]
epsW=0.001
epsB=0.002
momW=0.9
momB=0.9
wc=0.004

[conv2]
epsW=1e-3
epsB=2e-3
momW=0.9
momB=0.9
wc=0.004

[rnorm1]
scale=0.00005
pow=.75

[fc10]
epsW=0.001
epsB=0.002
momW=0.9
momB=0.9
wc=1

[logprob]
coeff=1

[conv3]
epsW=0.001
"""


def test_a_file_of_version_1():
    built = build(V1_DEF, V1_PARAMS, feeds={0: (24, 24, 3)})
    assert built.shapes["pool1"] == (12, 12, 16)
    assert built.by_name["conv2"].epsW[0](0.5) == 0.001
    assert built.by_name["rnorm1"].scale == 0.00005
    assert built.by_name["mix"].coeffs == [1, 0.5]
    assert [str(remark) for remark in built.remarks] == [
        "n-params.cfg:29: [conv3] the net has no layer of this name; ignored",
        "n.cfg:19: [conv1] partialSum=4: tuned the kernels of 2012; ignored, here and in 1 more",
    ]


def test_a_file_of_version_2():
    text = V1_DEF.replace("partialSum=4", "sumWidth=6\ngpu=0").replace("partialSum=8", "sumWidth=3")
    text = text.replace("coeffs=1,0.5\n", "").replace(
        "[fc10]\ntype=fc", "[drop]\ntype=dropout2\ninputs=mix\n\n[fc10]\ntype=fc\ngpu=0"
    )
    text = text.replace("inputs=mix\ninitW", "inputs=drop\ninitW")
    params = V1_PARAMS.replace("1e-3", "dexp[base=.01;tgtFactor=250;numSteps=4]")
    params = (
        params.replace("pow=.75", "pow=.75\nminDiv=2")
        + "[mix]\ncoeffs=0.5\n[drop]\nkeep=0.5\nenable=true\n"
    )
    built = build(text, params, feeds={0: (24, 24, 3)})
    assert built.by_name["mix"].coeffs == [0.5, 0.5]
    assert built.by_name["rnorm1"].minDiv == 2
    assert built.by_name["conv2"].epsW[0](0.25) == 0.01
    assert [str(remark) for remark in built.remarks[1:]] == [
        "n.cfg:19: [conv1] sumWidth=6: tuned the kernels of 2012; ignored, here and in 1 more",
        "n.cfg:20: [conv1] gpu=0: tuned the kernels of 2012; ignored, here and in 1 more",
    ]


def test_channels_are_checked():
    assert mistakes(
        V1_DEF.replace("channels=16\n\n[rnorm1]", "channels=32\n\n[rnorm1]").replace(
            "dataIdx=0\n", "dataIdx=0\nimgSize=24\n"
        )
    ) == ["n.cfg:31: [pool1] channels=32: conv1 has 16 channels"]


# -------------------------------------------------------------------- rates and --set


def rates(built, name="conv1"):
    layer = built.by_name[name]
    return layer.epsW[0](0), layer.momW[0], layer.wc[0]


def test_where_a_rate_may_stand():
    text = NET.replace("neuron=relu", "neuron=relu\nepsW=0.5")
    assert rates(build(NET)) == (0.01, 0.9, 0)
    assert rates(build(text)) == (0.5, 0.9, 0)
    assert rates(build(text, "[conv1]\nepsW=0.25\n")) == (0.25, 0.9, 0)
    assert rates(build(text, "[DEFAULT]\nepsW=0.125\nwc=1\n")) == (0.125, 0.9, 1)
    both = build(text, "[DEFAULT]\nepsW=0.125\nwc=1\n[conv1]\nepsW=2\n")
    assert rates(both) == (2, 0.9, 1)
    assert rates(both, "fc2") == (0.125, 0.9, 1)


def test_the_params_file_beside_the_net(tmp_path):
    (tmp_path / "net.cfg").write_text(NET)
    assert rates(Source.read(tmp_path / "net.cfg").graph(None, 10))[0] == 0.01
    (tmp_path / "net-params.cfg").write_text("[conv1]\nepsW=0.25\n")
    (tmp_path / "other.cfg").write_text("[conv1]\nepsW=0.75\n")
    assert rates(Source.read(tmp_path / "net.cfg").graph(None, 10))[0] == 0.25
    other = Source.read(tmp_path / "net.cfg", tmp_path / "other.cfg")
    assert rates(other.graph(None, 10))[0] == 0.75
    assert Source.from_dict(other.to_dict()) == other


@pytest.mark.parametrize(
    "params",
    ["", "[conv1]\nepsW=0.25\n", "[DEFAULT]\nepsW=0.25\n", "[DEFAULT]\nepsW=0.25\n[conv1]\nwc=1\n"],
)
def test_set_beats_both_files(params):
    for text in (NET, NET.replace("neuron=relu", "neuron=relu\nepsW=0.5")):
        built = build(text, params, "conv1.epsw=0.75", "conv1.filters=7")
        assert rates(built)[0] == 0.75
        assert built.shapes["conv1"] == (10, 10, 7)
        assert rates(build(text, params, "conv1.epsW=1", "conv1.epsW=2"))[0] == 2
        everywhere = build(text, "[DEFAULT]\nepsW=0.25\n", "DEFAULT.epsW=4")
        assert rates(everywhere, "fc2")[0] == rates(everywhere)[0] == 4


def test_set_of_several_rates_of_a_layer():
    """Each holds, also where the params file knows the layer by [DEFAULT] alone."""
    said = {"epsW": 0.25, "epsB": 0.5, "momW": 0.75, "momB": 0.125, "wc": 0.0625}
    default = "[DEFAULT]\n" + "".join(f"{key}=0.875\n" for key in said)
    for params in (default, default + "[conv1]\nepsW=1\n", ""):
        net = build(NET, params, *(f"conv1.{key}={value}" for key, value in said.items()))
        section = net.by_name["conv1"].section
        assert {key: float(section[key.lower()]) for key in said} == said
        late = build(NET, params, "conv1.epsB=0.5", "DEFAULT.epsB=2", "DEFAULT.wc=3")
        section = late.by_name["conv1"].section
        assert (float(section["epsb"]), float(section["wc"])) == (0.5, 3)


@pytest.mark.parametrize(
    "override,note",
    [
        ("conv1.filters=0", "[conv1] filters=0: must be 1 or more"),
        ("conv1.stide=2", "[conv1] stide=2: type=conv has no such key; did you mean 'stride'?"),
        ("conv1.stride=x", "[conv1] stride=x: must be a whole number"),
        ("conf1.filters=2", "no section [conf1]; did you mean 'conv1'?"),
        ("conv1=2", "must be section.key=value, as in conv1.filters=64"),
        ("filters=2", "must be section.key=value, as in conv1.filters=64"),
        ("conv1.filters", "must be section.key=value, as in conv1.filters=64"),
        ("fc2.inputs=conv2", "[fc2] inputs=conv2: no layer 'conv2' above; did you mean 'conv1'?"),
        ("DEFAULT.eW=1", "[DEFAULT] eW=1: no type of layer has such a key; did you mean 'epsW'?"),
    ],
)  # fmt: skip
def test_set_is_checked(override, note):
    assert mistakes(NET, "", override) == [f"--set {override}: {note}"]


def test_image_size():
    def found(size, more=""):
        return Source("n", NET.replace("imgSize=12\n", size) + more).image_size()

    assert found("imgSize=12\n") == (12, 3)
    for wrong in ("", "imgSize=\n", "imgSize=²\n", "imgSize=0\n", "imgSize=-1\n", "imgSize=9e9\n"):
        assert found(wrong) == (None, 3)
    assert Source("n", "[labels]\ntype=data\ndataIdx=1").image_size() == (None, None)


# -------------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    "text,values",
    [
        ("0.01", {0: 0.01, 0.5: 0.01, 1: 0.01}),
        ("const[base=1e-5]", {0: 1e-5, 1: 1e-5}),
        ("CONST[ Base = .5 ]", {0.3: 0.5}),
        ("linear[base=1;tgtFactor=4]", {0: 1, 0.5: 0.625, 1: 0.25, 2: 0.25, -1: 1}),
        ("exp[base=2;tgtFactor=16]", {0: 2, 0.25: 1, 0.5: 0.5, 1: 0.125}),
        ("exp[tgtFactor=0.25;base=1]", {0: 1, 0.5: 2, 1: 4}),
        ("dexp[base=1;tgtFactor=100;numSteps=3]", {0: 1, 1 / 3: 1, 0.34: 0.1, 0.67: 0.01, 1: 0.01}),
        ("dexp[numSteps=1;base=1;tgtFactor=8]", {0: 0.125, 1: 0.125}),
        (
            "dexp[base=.01;tgtFactor=250;numSteps=4]",
            {0: 0.01, 0.25: 0.01, 0.2501: 0.0015874, 0.5: 0.0015874, 0.5001: 0.00025198,
             0.75: 0.00025198, 0.7501: 0.00004, 1: 0.00004},
        ),
    ],
)  # fmt: skip
def test_schedules(text, values):
    rate = schedule(text)
    for progress, value in values.items():
        np.testing.assert_allclose(rate(progress), value, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 49, 100])
def test_the_edge_of_a_stair_has_the_rate_before_it(n):
    rate = schedule(f"dexp[base=1;tgtFactor=2;numSteps={n}]")
    for i in range(n):
        want = 2 ** -(i / (n - 1) if n > 1 else 1)
        assert rate((i + 1) / n) == rate(np.nextafter(i / n, 1)) == want


def test_a_schedule_of_many_steps_takes_no_time():
    start = time.thread_time()
    schedule("dexp[base=1;tgtFactor=2;numSteps=1000000000]")(0.999)
    assert time.thread_time() - start < 0.1
