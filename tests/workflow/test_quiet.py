"""Snakemake itself must not become the neighbour that disturbs a timed job."""


def test_no_timers_pile_up_while_jobs_end(finished):
    # Its rate limiter would keep one thread for each job that has ended: some thirty by the end of this study.
    assert 0 < finished.most_threads <= 8, finished.most_threads
