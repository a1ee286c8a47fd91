"""The networks F inside the denoisers, and how they are made, saved, loaded and converted.

`unet` is the image network (EDM's DDPM++ U-Net), `mlp` the network for points on the plane, `unet2d` that of a
diffusers checkpoint. `build` makes a denoiser from the settings, and reads and writes its weights. `edm_import`
converts published EDM pickles to such files, and `diffusers_import` finds what a diffusers checkpoint holds.
"""
