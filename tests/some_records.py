"""Records of some studies alone, the rest not recorded."""

from analyses.claims import Records


def only(**studies):
    return Records(**{**dict.fromkeys(Records._fields), **studies})
