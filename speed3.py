import torch, time, sys
torch.set_num_threads(1)
import numpy as np
from bcd_bench_bcd.inference.method import BCDMethod
from bcd_bench_bcd.inference.weights import load_model
from bcd_bench.plugin.registry import load_registry
from bcd_bench.plugin.suites import load_suite
import imageio.v3 as iio
m=BCDMethod({})
from bcd_bench_bcd.inference.bcd import BCD
bcd=BCD.from_pretrained("heads-landmarks")
m.attach(bcd.loaded)
from bcd_bench.plugin.registry import load_registry
from bcd_bench.plugin.suites import load_suite
suite=load_suite(load_registry(),"heads-cross",{})
two=lambda c: np.concatenate([c.frames,c.frames[::-1]])
clips=[(two(p.content.load()),two(p.motion.load())) for p in suite.pairs[:3]]
print([ (a.shape,b.shape) for a,b in clips])
m.transfer_frames(*clips[0],seed=0)
for c,d in clips[1:]:
    t=time.process_time(); w=time.time(); m.transfer_frames(c,d,seed=0); print("cpu",time.process_time()-t,"wall",time.time()-w)
if len(sys.argv)>1:
    import cProfile,pstats
    pr=cProfile.Profile(); pr.enable(); m.pipeline and None
    from bcd_bench_bcd.inference.landmarks import landmark_reader
    c,d=clips[1]; d=d[::-1].copy(); c=c[::-1].copy()
    m.transfer_frames(c,d,seed=0); pr.disable()
    pstats.Stats(pr).sort_stats("cumtime").print_stats(60)
