// The object that owns the precompiled torch/torch.h; every torch layer reuses it (25 s a file without, 9 s with).
