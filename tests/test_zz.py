import time
import numpy as np
def test_a(trained):
    t=time.time()
    s=trained.sample(n_samples=5)
    print(s.shape, time.time()-t)
    t=time.time(); s=trained.sample(n_samples=7); print(time.time()-t)
    print(trained.history, trained.coupling_summary())
