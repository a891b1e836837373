"""bursts of 500: python3 burst.py ROUNDS [perf-args]"""
import os, sys, time, tempfile, shutil, statistics, pathlib, subprocess
sys.path.insert(0, '/work/main/bench'); sys.dont_write_bytecode = True
from harness import setup, cases, bursts
from harness.engine import Engine, Function, PYTHON_PLAIN
from harness.http_client import at_once, check, paced
work = pathlib.Path(tempfile.mkdtemp(prefix='faaster-probe-')); work.chmod(0o755)
tools = setup.Tools(work, 0, 1)
if os.environ.get('ENGINE'): tools.engine_program = lambda: os.environ['ENGINE']
rounds=int(sys.argv[1]); perf=sys.argv[2:]
engine=Engine(tools,'e',more=tuple(os.environ.get('MORE','').split()))
def cpu():
    v=open('/proc/stat').readline().split(); return [int(x) for x in v[1:9]]
try:
    engine.start()
    f=Function(tools, cases.PYTHON_RUNTIME, PYTHON_PLAIN)
    for r in range(rounds):
        for i in range(500): engine.deploy(f'r{r}-{i}', f)
        engine.settle(); time.sleep(.5)
        t=[engine.function_target(f'r{r}-{i}') for i in range(500)]
        q=None
        if perf and r==rounds-1:
            q=subprocess.Popen(['perf','record','-q','-a',*perf,'-k','CLOCK_MONOTONIC','-o','/tmp/e8/b.data']); time.sleep(1)
        a=cpu(); b0=time.monotonic(); c=at_once(f'b{r}', t); b1=time.monotonic(); b=cpu()
        if q: q.send_signal(2); q.wait(); print('window %.6f,%.6f'%(b0,b1))
        d=[(y-x)*10 for x,y in zip(a,b)]
        print('round',r,'all %.0f ms rates %.0f %.0f'%((max(c),)+bursts._rates(c)),'cpu ms user %d nice %d sys %d idle %d iow %d irq %d sirq %d steal %d'%tuple(d), flush=True)
finally:
    engine.stop(); shutil.rmtree(work, ignore_errors=True)
