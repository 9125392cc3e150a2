"""The classes of a frame, in the order of the classifier's outputs."""

CLASSES = ("OK", "Spot", "Diagonal", "Error")
