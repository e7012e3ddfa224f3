"""Our encoders at home in kaiko-eva: models, a decoder and a writer for its configs, names for its registry."""

from tapct.eva.decoder import LinearDecoder
from tapct.eva.models import Backbone, DenseEncoder
from tapct.eva.registered import ModelFromRegistry, register
from tapct.eva.writer import EmbeddingsWriter

__all__ = ["Backbone", "DenseEncoder", "EmbeddingsWriter", "LinearDecoder", "ModelFromRegistry", "register"]

register()
