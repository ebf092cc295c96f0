"""The kinds of architectures, on which default settings of a training depend."""

CONVOLUTIONAL, FULLY_CONNECTED, RECURRENT = "convolutional", "fully connected", "recurrent"
