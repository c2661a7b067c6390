import fuzz


def test_a_few_hundred_extreme_and_broken_inputs():
    tried = fuzz.run(300, seed=1)
    assert sum(tried.values()) == 300 and min(tried.values()) > 10
