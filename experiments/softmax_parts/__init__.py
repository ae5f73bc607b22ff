"""The studies of experiments/softmax_as_rnn.py."""
