"""type=cost.logreg: multinomial logistic regression; what a classifier minimises.

    [logprob]
    type=cost.logreg
    inputs=labels,probs
    topk=5

`labels` is a data layer with dataIdx=1, whole numbers 0 to classes - 1 of shape (1, 1, 1); `probs`
a type=softmax layer with one number for each class. The columns of the output:

    logprob   -ln p(label), computed from what the softmax reads: ln(sum e^x) - x[label]. It stays
              finite where p is rounded to 0, and its gradient p - 1[label] goes to the softmax's
              input in one step.
    error     1 if a class has a greater p than the label, else 1 - 1/n if n classes (the label
              among them) share the greatest p; cuda-convnet's rule.
    top<k>    with topk=k above 1: the same for k guesses. With m classes above the label and n
              equal to it, the k - m guesses that are left fall on any of the n: 1 - (k - m)/n,
              between 0 and 1.

Only logprob has a gradient.
"""

from convnet.layer import CostLayer, rate


class Logreg(CostLayer):
    topk = rate(int, "a third value: is the label among the k most probable", default=1, min=1)

    examples = """
        labels5 1x1x5 1x1x5
        labels5 1x1x5 1x1x5  topk=3 coeff=0.5
    """

    @property
    def values(self):
        """The columns of the output."""
        return ("logprob", "error") + ((f"top{self.topk}",) if self.topk > 1 else ())

    def link(self, producers):
        if len(producers) != 2:
            raise ValueError(f"needs 2 inputs, labels and a softmax; has {len(producers)}")
        labels, probs = producers
        if getattr(labels, "dataIdx", None) != 1:
            raise ValueError(
                f"the first input must be the labels, a type=data layer with dataIdx=1; "
                f"{labels.name!r} is none"
            )
        if probs.type != "softmax":
            raise ValueError(
                f"the second input must be a type=softmax layer; "
                f"{probs.name!r} is type={probs.type}"
            )
        return [probs.reads[0]]

    def shape(self, labels, probs, logits):
        if labels != (1, 1, 1):
            raise ValueError("the labels must be one number a case, not {}x{}x{}".format(*labels))
        outputs = probs[0] * probs[1] * probs[2]
        classes = self.words.get("classes", outputs)
        if outputs != classes:
            raise ValueError(
                f"the softmax has {outputs} outputs, but there are {classes} classes: "
                f"set outputs=classes (or outputs={classes}) in the last fc layer"
            )
        if self.topk > classes:
            raise ValueError(f"topk={self.topk}, but there are only {classes} classes")
        return 1, 1, len(self.values)

    def fprop(self, run, w, labels, probs, logits):
        xp, N, shape = run.xp, len(logits), logits.shape
        t, p, x = labels.reshape(N), probs.reshape(N, -1), logits.reshape(N, -1)
        classes = p.shape[1]
        bad = t[(t < 0) | (t >= classes)]
        if bad.size:
            raise ValueError(f"label {int(bad[0])} is not in 0..{classes - 1}: {classes} classes")
        at, down = (xp.arange(N), t), x - x.max(1, keepdims=True)
        log_sum = xp.log(xp.exp(down).sum(1, keepdims=True))
        y = run.empty((N, 1, 1, len(self.values)), x.dtype)
        y[:, 0, 0, 0] = log_sum[:, 0] - down[at]
        mine = p[at][:, None]
        equal = (p == mine).sum(1)
        above = classes - (p < mine).sum(1) - equal  # a NaN is above: never a right answer
        for column, k in enumerate([1, self.topk][: len(self.values) - 1], 1):
            y[:, 0, 0, column] = 1 - xp.clip((k - above) / xp.maximum(equal, 1), 0, 1)

        def bprop(dy, wants):
            if 2 not in wants:
                return [None] * 3, {}
            dx = xp.exp(down - log_sum)
            dx[at] -= 1
            dx *= dy[:, 0, 0, :1]
            return [None, None, dx.reshape(shape)], {}

        return y, bprop
