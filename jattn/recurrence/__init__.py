"""Engine 2: linear recurrences over a matrix state (linear attention, decays, delta rules)."""

from jattn.recurrence import feature_maps as feature_maps
from jattn.recurrence.along_axis import recur_along_axis as recur_along_axis
from jattn.recurrence.low_rank import recur_low_rank as recur_low_rank
from jattn.recurrence.packed import recur_packed as recur_packed
from jattn.recurrence.recur import recur as recur
