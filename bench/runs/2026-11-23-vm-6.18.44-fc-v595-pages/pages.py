"""Which step of a rehearsal makes how many pages of the python3 runtime a fork server child's own (notes.md)."""
import os, sys, re, tomllib
sys.path.insert(0,'/work/main/runtimes/python3'); sys.dont_write_bytecode=True
spec=tomllib.load(open('/work/main/runtimes/python3/runtime.toml','rb'))
imports=None
def find(d):
    global imports
    for k,v in d.items():
        if k=='imports': imports=v
        elif isinstance(v,dict): find(v)
find(spec)
for m in ('tomllib','re'): pass
os.environ['FAASTER_IMPORTS']=imports if isinstance(imports,str) else ' '.join(imports)
CORE=frozenset(sys.modules)
from faaster_runtime import at_fork; at_fork.collect()
from faaster_runtime import prime
R='/work/main/runtimes/python3'
prime.run(R)
from faaster_runtime import load, logs, serve
load.expect('/var/task'); logs.prepare()
from faaster_runtime import fork_server, confine, frames, context, execute
import socket, json
from faaster_runtime import result
prime.settle(); prime.warm_up(R); fork_server._reseeding[:]=fork_server._find_generators(); fork_server.renew(); at_fork.collected()

def measure(name, *fs):
    r,w=os.pipe(); r2,w2=os.pipe(); pids=[]
    for i in range(8):
        pid=os.fork()
        if pid==0:
            if os.fork()==0:
                for f in fs: f()
                os.write(w,b'%8d'%os.getpid()); os.read(r2,1); os._exit(0)
            os._exit(0)
        pids.append(pid); os.read(r,0) if 0 else None
        g=os.read(r,8); gs.append(g)
    g=int(gs[-4]); gs.clear()
    s=open(f'/proc/{g}/smaps_rollup').read(); st=open(f'/proc/{g}/stat').read().split(')')[1].split()
    pd=int(re.search(r'Private_Dirty:\s+(\d+)',s)[1]); 
    det={}
    for l in open(f'/proc/{g}/smaps'):
        p=l.split()
        if '-' in p[0] and ':' not in p[0]: n=(p[5].split('/')[-1] if len(p)>5 else 'anon')
        elif p[0]=='Private_Dirty:' and p[1]!='0': det[n]=det.get(n,0)+int(p[1])
    print('%-40s private dirty %5d KB minflt %s'%(name,pd,st[7]), sorted(det.items(),key=lambda x:-x[1])[:5])
    os.write(w2,b'x'*8)
    for p in pids: os.waitpid(p,0)
    os.close(r);os.close(w);os.close(r2);os.close(w2)
gs=[]
fns={}
again=lambda: prime.again(R)
measure('nothing')
measure('renew', fork_server.renew)
measure('again', again)
measure('again x2', again, again)
measure('renew+again', fork_server.renew, again)
# parts
def sp():
    global ours,theirs; ours,theirs=socket.socketpair()
def snd():
    global ch; ch=frames.Channel(ours.fileno(),None); theirs.sendall(prime._load)
def rl():
    global about; about=result.decode_event(ch.receive_load())
def env(): load.apply_environment(about, R+'/prime/task'); os.chdir(R+'/prime/task')
def sp2():
    global ent; ent=os.listdir(R+'/prime/task'); load.set_search_path(R+'/prime/task',ent); load.make_room(R+'/prime/task',ent,frozenset())
def imp():
    global h; h=load.find_handler(about.get('handler',''),R+'/prime/task',ent)
def ctx():
    global rc; ch.make_call=context.function_context(about); rc=execute.make_execute(h, execute.make_post(ch, lambda c: None))
def rdy(): ch.out.append(serve.READY_FRAME); ch.flush(); execute.is_async(h)
def inv():
    theirs.sendall(frames.frame(frames.INVOKE,1,b'{"name":"prime"}',b'{"requestId":"prime"}'))
    for c in ch.receive(): rc(c); logs.flush()
    ch.flush()
seq=[sp,snd,rl,env,sp2,imp,ctx,rdy,inv,inv]
for i in range(1,len(seq)+1): measure('.. '+seq[i-1].__name__, *seq[:i])
