"""Vector-quantized autoencoders: their codes are entries of a learned codebook (`research.models.code.Codebook`)."""

from research.models.code import Codebook
from research.models.dense_ae import Autoencoder
from research.models.recurrent_ae import RecurrentAE
from research.networks.convolutional import ConvolutionalNetworks
from research.networks.dense import DenseNetworks
from research.networks.recurrent import RecurrentNetworks
from research.tree import inline, spec


@spec
class VQAE(Autoencoder):
    """Vector-quantized autoencoder with dense networks."""

    networks: DenseNetworks = inline()
    code: Codebook = inline()


@spec
class ConvolutionalVQAE(Autoencoder):
    """Vector-quantized autoencoder of images or sequences with convolutional networks."""

    networks: ConvolutionalNetworks = inline()
    code: Codebook = inline()


@spec
class RecurrentVQAE(Autoencoder):
    """Vector-quantized autoencoder of sequences, with one code or with a code at every step."""

    networks: RecurrentNetworks = inline()
    code: Codebook = inline()

    start, step = RecurrentAE.start, RecurrentAE.step  # its encoder reads sequences in the same way
