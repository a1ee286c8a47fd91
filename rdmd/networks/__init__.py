"""The networks F inside the denoisers, and how they are made, saved, loaded and converted.

`ddpmpp` is the image network (EDM's DDPM++ U-Net), made of `blocks`; `mlp` is the network for points on
the plane. `build` makes a denoiser from the settings and reads and writes its weights. `convert_edm`
turns a published EDM network into such a weights file, with `inert` to read the pickle that it comes in.
"""
