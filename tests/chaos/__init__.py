"""Random faults under load, and the oracle's word at the end: ``python -m tests.chaos``, ``make chaos``.

``load`` works on the source in a process of its own, ``plan`` draws the faults from the seed, ``faults`` does them to the
``stage``, ``watch`` sees how the trail advances, ``run`` leads, ``report`` says what came of it. ``broken`` holds daemons that
break a rule each.
"""
