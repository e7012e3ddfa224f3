"""Where a store is: a folder, or a URL."""

from pretrain.config import DataConfig
from pretrain.data.store import Store
from pretrain.setting_types import is_url


def open_store(data: DataConfig) -> Store:
    """Opens the store of a run.

    Raises:
        PretrainError: There is none, or it is damaged.
        StoreError: It is on the network, which does not answer, or not to us.
    """
    if not is_url(data.store):
        return Store(data.store)
    # Here, so that only those who read URLs load fsspec and what speaks to the network.
    from pretrain.data.remote.store import RemoteStore

    assert data.cache is not None
    return RemoteStore(str(data.store), data.cache, int(data.cache_gb * 1e9))
