from .accelerating import accelerate as accelerate
from .following import Following as Following
from .huggingface import HFCallback as HFCallback
from .lightning import LightningCallback as LightningCallback
