"""The side-by-side benchmark: starts contenders, drives them in turn, compares. Entry point: bench/run.

Reading order: cases (what is compared with what, and the targets), warm, cold, idle (how it is measured),
baselines and engine (who is measured), load, cpu, processes, http_client (with what), report (what is written).
"""
