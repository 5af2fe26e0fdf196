"""Detection as SPP-net does it: one convolutional pass serves all windows of a photo.

Everywhere in here boxes are float32 (N, 4): left, top, right, bottom in pixels from 0, the right
and the bottom edge excluded, so that a box is right - left pixels wide. What files of others hold
is translated where they are read and written (boxes.from_voc, boxes.to_voc).
"""
