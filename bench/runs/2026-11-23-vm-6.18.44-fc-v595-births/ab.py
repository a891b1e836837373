"""ab.py SECTION(claims-LABEL|empty) ROUNDS NAME=FOLDER...   interleaved"""
import os, sys, shutil, statistics, pathlib, tempfile, json
sys.path.insert(0, '/work/main/bench'); sys.dont_write_bytecode = True
from harness import setup, cases, coldstarts as cs
from harness.engine import Engine, Function
from harness.http_client import check
import types
section, rounds = sys.argv[1], int(sys.argv[2])
engines = [a.split('=') for a in sys.argv[3:]]
way=os.environ.get('WAY','25 ms apart')
opts=types.SimpleNamespace(quick=False)
cs.CALLS=int(os.environ.get('CALLS','100'))
res={n:[] for n,_ in engines}
for r in range(rounds):
    for n,f in engines:
        work = pathlib.Path(tempfile.mkdtemp(prefix='faaster-probe-')); work.chmod(0o755)
        tools = setup.Tools(work, 0, 1); tools.engine_program=lambda f=f: f+'/faaster'
        label='python3' if section=='empty' else section.split('-')[1]
        more=("--pool","python3=0","--pool-max","0") if section=='empty' else ()
        try:
            with Engine(tools,'e',more=more) as e:
                fn=cs.functions(tools)[label]; e.deploy('stays',fn); t=e.function_target('stays'); check('s',t)
                calls,ph=cs.in_groups(e,label,fn,t,cs.WAYS[way],cs.GROUPS[label],opts)
            res[n]+=calls
            s=sorted(calls); print(n,'p50 %.2f p90 %.2f p99 %.2f'%(s[len(s)//2],s[int(len(s)*.9)],s[int(len(s)*.99)]), {k:round(v,2) if isinstance(v,float) else v for k,v in ph[-1].items()} if isinstance(ph[-1],dict) else ph[-1], flush=True)
        finally: shutil.rmtree(work, ignore_errors=True)
for n in res:
    s=sorted(res[n]); print('ALL',n,len(s),'p50 %.2f p90 %.2f p99 %.2f'%(s[len(s)//2],s[int(len(s)*.9)],s[int(len(s)*.99)]))
if os.environ.get('RAW'): json.dump(res,open(os.environ['RAW'],'w'))
