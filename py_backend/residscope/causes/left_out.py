"""The words for effects that are left out of means."""

LEFT_OUT = "Effects there are NaN, and are left out of means."
