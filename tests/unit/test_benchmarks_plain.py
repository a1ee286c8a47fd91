"""The yardstick computes the network that it is compared with."""

import torch

from benchmarks.plain_loop import computed_plainly
from rdmd import config
from rdmd.networks.build import build_denoiser


def test_the_plain_network_gives_the_same_numbers():
    torch.manual_seed(0)
    network = config.ImageNetwork(
        kind="ddpmpp", model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4]
    )
    ours = build_denoiser(network, (3, 8, 8))
    for weight in ours.parameters():
        if weight.ndim > 1:
            torch.nn.init.xavier_uniform_(weight)
    plain = computed_plainly(build_denoiser(network, (3, 8, 8)))
    plain.load_state_dict(ours.state_dict())
    x, sigma = torch.randn(4, 3, 8, 8), torch.rand(4) + 0.1
    # About ten layers of float32, in each of which sums are taken in another order.
    torch.testing.assert_close(plain(x, sigma), ours(x, sigma), rtol=1e-4, atol=1e-5)
    assert type(plain.model.enc["8x8_conv"]) is type(ours.model.enc["8x8_conv"])
    assert type(plain.model.enc["4x4_down"]) is not type(ours.model.enc["4x4_down"])
