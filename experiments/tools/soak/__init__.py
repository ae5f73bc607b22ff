"""Kills, damage and whether a run minds: what `make soak` does.

    python -m experiments.tools.soak                       100 kills of each sort, 1000 damages
    python -m experiments.tools.soak --kills=3 --damages=0 a short form

A small run is killed with SIGKILL at random moments, in the middle of steps, checkpoints, arrays
and claims, and started again until it ends: once as one process, once as two processes of two
devices each, of which one or both are killed. What it leaves must be, bit for bit, what a run that
nobody killed leaves. Most starts are forks of this process, with one folder of compiled programs;
some start Python, as a user does. Then files of a finished run are damaged, one at a time: the same
command again must end with the same claims, or with one clear line and status 2. Exit status 3 if
not.
"""
