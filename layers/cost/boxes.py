"""type=cost.boxes: how far a regression of boxes is from its targets, smooth L1 (Fast R-CNN, 2.3).

    [boxcost]
    type=cost.boxes
    inputs=labels,targets,boxes

`labels` is a data layer with dataIdx=1, where label 0 is the background, which has no box;
`targets` one with dataIdx=3, four numbers; `boxes` has four numbers for each class, those of class
k from 4 k on. The cost of a case with label k > 0 is the sum over its four numbers d = boxes -
targets of d^2 / 2 where |d| < 1, else |d| - 1/2; with label 0 it is 0.
"""

from convnet.layer import CostLayer


class Boxes(CostLayer):
    values = ("boxes",)
    examples = """
        labels5 1x1x4 1x1x20
        labels5 1x1x4 1x1x20  coeff=0.5
    """

    def link(self, producers):
        kinds = [getattr(p, "dataIdx", None) for p in producers]
        if len(producers) != 3 or kinds[:2] != [1, 3]:
            raise ValueError(
                "needs 3 inputs: labels (type=data dataIdx=1), targets (type=data dataIdx=3) and "
                "a layer with four numbers for each class"
            )
        return []

    def shape(self, labels, targets, boxes):
        classes, outputs = self.words.get("classes"), boxes[0] * boxes[1] * boxes[2]
        if targets != (1, 1, 4) or (classes and outputs != 4 * classes):
            raise ValueError(
                f"{self.reads[2]!r} has {outputs} outputs, but 4 for each of {classes} classes, "
                f"the background among them, are {4 * (classes or 0)}"
            )
        return 1, 1, 1

    def fprop(self, run, w, labels, targets, boxes):
        xp, N = run.xp, len(boxes)
        t, of_class = labels.reshape(N), boxes.reshape(N, -1, 4)
        bad = t[(t < 0) | (t >= of_class.shape[1])]
        if bad.size:
            raise ValueError(f"label {int(bad[0])} is not in 0..{of_class.shape[1] - 1}")
        at = xp.arange(N), t
        d = xp.where((t > 0)[:, None], of_class[at] - targets.reshape(N, 4), 0)
        far = xp.abs(d)
        y = xp.where(far < 1, d * d / 2, far - boxes.dtype.type(0.5)).sum(1)

        def bprop(dy, wants):
            slope = xp.clip(d, -1, 1) * dy.reshape(N, 1)
            dxs = [None, -slope.reshape(targets.shape) if 1 in wants else None, None]
            if 2 in wants:
                dx = xp.zeros_like(of_class)
                dx[at] = slope
                dxs[2] = dx.reshape(boxes.shape)
            return dxs, {}

        return y.reshape(N, 1, 1, 1), bprop
